"""What the traffic plane must still know after a crash: who is the incumbent, and the last token that was given out."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from interlock.errors import StateError
from interlock.model.release import ModelVersion
from interlock.plane.state_directory import write_json


@dataclass(frozen=True, slots=True)
class PlaneMemory:
    """
    `serving` is the kind of model server and its thread count. `is_proved`: the incumbent was ready at least once; until then another
    version may be adopted in its place. `promoted_token` is the token of the release that was promoted last.
    """

    incumbent: ModelVersion | None = None
    serving: tuple[str, int] = ("interlock", 4)
    token: int = 0
    is_proved: bool = False
    promoted_token: int | None = None


def write_memory(path: Path, memory: PlaneMemory) -> None:
    """Replace the file. Raises StateError when it cannot be written."""
    saved = {
        "incumbent": asdict(memory.incumbent) if memory.incumbent else None,
        "serving": list(memory.serving),
        "token": memory.token,
        "proved": memory.is_proved,
        "promoted_token": memory.promoted_token,
    }
    try:
        write_json(path, saved)
    except OSError as error:
        raise StateError(f"{path} cannot be written ({error.strerror}): free or unlock the state directory") from error


def read_memory(path: Path) -> PlaneMemory:
    """The memory of the last time, an empty one if there was none. Raises StateError when the file cannot be understood."""
    if not path.exists():
        return PlaneMemory()
    try:
        saved = json.loads(path.read_text())
        return PlaneMemory(
            incumbent=ModelVersion(**saved["incumbent"]) if saved["incumbent"] else None,
            serving=(str(saved["serving"][0]), int(saved["serving"][1])),
            token=int(saved["token"]),
            is_proved=bool(saved.get("proved", saved["incumbent"])),  # an older file does not say: its incumbent has served
            promoted_token=None if (promoted := saved.get("promoted_token")) is None else int(promoted),
        )
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise StateError(
            f"{path} does not say who the incumbent is ({type(error).__name__}): mend it, or choose another directory"
        ) from error
