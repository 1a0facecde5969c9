"""One word for each thing: what the glossary bans is no identifier of ours."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for part in ("src", "flows", "tasks") for path in (ROOT / part).rglob("*.py"))
# Each with the word that says it here.
BANNED = {
    "rollout": "release",
    "challenger": "candidate",
    "mttr": "time to recover, of one event",
    "mttd": "time to detect, of one event",
    "sla": "recovery_time_objective",
    "rto": "recovery_time_objective",
    "soak": "bake",
    "undo": "rollback",
    "revert": "rollback",
    "override": "nothing: there is no override path",
    "bypass": "nothing: there is no override path",
    "force": "nothing: there is no override path",
}
BANNED_FILES = {"utils", "helpers", "common", "base", "manager", "misc"}


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def words(identifier: str) -> set[str]:
    """`setCandidateWeight` and `set_candidate_weight` are both {set, candidate, weight}."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_is_an_identifier(path: Path) -> None:
    names = {path.stem, *identifiers(ast.parse(path.read_text(encoding="utf-8")))}
    found = {name: BANNED[word] for name in names for word in words(name) & BANNED.keys()}
    assert not found, f"say instead: {found}"


def test_a_file_is_named_after_what_is_in_it() -> None:
    assert not [path for path in FILES if path.stem in BANNED_FILES]


def test_no_file_is_longer_than_one_can_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > (120 if path.startswith("flows/") else 300)} == {}
