"""What every part of a release profile is made of: strict, frozen, nothing unknown, finite numbers."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
NonNegativeFloat = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(gt=0, lt=1)]
Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
PositiveInt = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.\-]*$", max_length=120)]


class Strict(BaseModel):
    """A part of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def refuse_twins(kind: str, names: Sequence[object]) -> None:
    """Raise ValueError when a name is given more than once."""
    if twins := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{kind} {', '.join(twins)} is named more than once")
