"""The exception tree is the one that is drawn, and every exception survives the way through a Prefect state."""

import pickle
import re

import cloudpickle  # type: ignore[import-untyped]  # it has no types; Prefect pickles with it
import pytest

from interlock import errors
from interlock.errors import ReleaseError

REAL = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ReleaseError)}


def drawn() -> dict[str, str]:
    """Class name to the name of its parent, as the docstring of errors.py draws it."""
    parents, above = {}, {0: "ReleaseError"}
    for mark, name in re.findall(r"^\s*([+-]) (\w+) ", errors.__doc__ or "", flags=re.MULTILINE):
        depth = 1 if mark == "+" else 2
        above[depth] = name
        parents[name] = above[depth - 1]
    return parents


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn() == {kind.__name__: kind.__base__.__name__ for kind in REAL - {ReleaseError} if kind.__base__}


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in sorted(REAL, key=lambda kind: kind.__name__)])
def test_every_exception_can_be_pickled_with_its_message(kind: type[ReleaseError]) -> None:
    for dumps in (pickle.dumps, cloudpickle.dumps):
        copy = pickle.loads(dumps(kind("5 observed, 7 wanted")))
        assert (type(copy), str(copy)) == (kind, "5 observed, 7 wanted")


def test_every_exception_says_who_must_act() -> None:
    assert all(kind.__doc__ for kind in REAL)
