"""Keeping secrets out of sentences that end up in evidence, in MLflow tags and in Slack."""

import re

MAX_CHARACTERS = 300  # one line in Slack and in an MLflow tag; the whole story belongs into a log

_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), "***@"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), "***"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE), r"\1 ***"),
    (
        re.compile(
            r"([\w\-]*(?:passw(?:or)?d|secret|token|signature|credential|api[_\-]?key|access[_\-]?key(?:[_\-]?id)?)[\w\-]*[\"']?\s*[=:]\s*[\"']?)[^\s&,;\"'}]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)


def one_line(error: BaseException) -> str:
    """What an exception says, in one line of at most 300 characters and without passwords, keys and tokens."""
    return redacted(" ".join(str(error).split()) or type(error).__name__)


def redacted(text: str) -> str:
    """The text with everything that looks like a secret replaced by `***`, cut to 300 characters after that."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
