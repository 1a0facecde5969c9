"""Free text: F1 of its tokens, which forgives order, case, spaces and punctuation, and sees every other word and symbol."""

import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import groupby
from typing import Any

from interlock.judge.comparators.answers import ONE_VALUE_A_ROW, Compare, Layout, Row, comparator_of, only_field

# Kana and ideographs are written without spaces: each is a token. A number is one with its sign and its point, so that 1.5 is not 5.1;
# else a run of letters, digits and the marks on them is one (vowels of Hindi and tones of Thai are marks). A symbol is a token: what
# Unicode calls so (+ < = $ and emoji), and the punctuation that code and quantities are written with. Other punctuation is left out.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CODE = r"!(?==)|[$+<=>^`|~%#&@*/\\\u2030]"
_ASCII_TOKENS = re.compile(rf"(?<!\w)[-+]?\d+(?:[.,]\d+)*(?!\w)|\w+|{_CODE}", re.ASCII)
_LAST_SYMBOL = 0x20000  # beyond are ideographs, and marks that _STYLE leaves out
_STYLE = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # an emoji in colour is the same emoji


def text_comparator(*, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """D is 1 - token F1, over tokens without case (Unicode's canonical forms and case folding), each as often as it stands there."""
    return comparator_of(_read_text, _unlike, layout=layout)


def _read_text(value: Any) -> Row | None:
    text = only_field(value)
    return Row("text", text) if isinstance(text, str) else None


def _tokens(text: str) -> list[str]:
    """Words and symbols; where there are none, signs: "???" and "..." are no more alike than two words."""
    if text.isascii():
        plain = text.lower()
        found: list[str] = _ASCII_TOKENS.findall(plain)
    else:
        # Canonical forms only: the compatible ones would make 102 out of 10².
        plain = _STYLE.sub("", unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()))
        found = _all_tokens().findall(plain)
    return found or [sign for sign in plain if not sign.isspace()]


@cache
def _all_tokens() -> re.Pattern[str]:
    """The tokens of every script; built when the first text needs it, which takes a moment."""
    marks, symbols = _class_of("M"), _class_of("S")
    word = rf"[\w{marks}]"
    number = rf"(?<!{word})[-+\u2212]?\d+(?:[.,]\d+)*(?!{word})"
    return re.compile(rf"[{_UNSPACED}]|{number}|(?:(?![{_UNSPACED}]){word})+|{_CODE}|[{symbols}]")


def _class_of(category: str) -> str:
    """Every sign beyond ASCII of a Unicode category, as ranges of a character class."""
    points = (point for point in range(0x80, _LAST_SYMBOL) if unicodedata.category(chr(point)).startswith(category))
    runs = ([point for _, point in run] for _, run in groupby(enumerate(points), key=lambda pair: pair[1] - pair[0]))
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


def _unlike(incumbent: str, candidate: str) -> float:
    if incumbent == candidate:
        return 0.0
    one, other = _tokens(incumbent), _tokens(candidate)
    total = len(one) + len(other)
    return 1 - 2 * (Counter(one) & Counter(other)).total() / total if total else 0.0
