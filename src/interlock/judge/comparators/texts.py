"""Free text: F1 of its tokens, which forgives order, case and spaces, and sees every other word."""

import re
import unicodedata
from collections import Counter
from typing import Any

from interlock.judge.comparators.answers import Compare, Row, comparator_of, only_field

# Kana and ideographs are written without spaces: each is a token. A number is one with its sign and its point, so that 1.5 is not 5.1;
# else a run of letters and digits is one. Other signs are left out, as in SQuAD.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_NUMBER = r"(?<!\w)[-+\u2212]?\d+(?:[.,]\d+)*(?!\w)"
_TOKENS = re.compile(rf"[{_UNSPACED}]|{_NUMBER}|(?:(?![{_UNSPACED}])\w)+")


def text_comparator() -> Compare:
    """D is 1 - token F1, over tokens without case (Unicode's NFKC and case folding), each as often as it stands there."""
    return comparator_of(_read_text, _unlike)


def _read_text(value: Any) -> Row | None:
    text = only_field(value)
    return Row("text", text) if isinstance(text, str) else None


def _tokens(text: str) -> list[str]:
    """Words; where there are none, signs: "???" and "!!!" are no more alike than two words."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _TOKENS.findall(plain) or [sign for sign in plain if not sign.isspace()]


def _unlike(incumbent: str, candidate: str) -> float:
    if incumbent == candidate:
        return 0.0
    one, other = _tokens(incumbent), _tokens(candidate)
    total = len(one) + len(other)
    return 1 - 2 * (Counter(one) & Counter(other)).total() / total if total else 0.0
