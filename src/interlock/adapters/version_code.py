"""Code that came with a model version, kept apart from that of the others in this process: two versions may name their modules alike."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

_one_at_a_time = RLock()  # there is one sys.modules for all versions


class VersionCode:
    """The modules and search paths that lie in one version's directory. Other code sees them only while they are in place."""

    def __init__(self, directory: Path) -> None:
        self._inside = f"{directory.resolve()}/"
        self._modules: dict[str, ModuleType] = {}
        self._paths: list[str] = []

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block every import, of this version's code too, finds this version's modules; after it nobody finds them."""
        with _one_at_a_time:
            sys.modules.update(self._modules)
            sys.path[:0] = self._paths
            try:
                yield
            finally:
                self._put_away()

    def _put_away(self) -> None:
        self._modules = {name: module for name, module in list(sys.modules.items()) if self._holds(module)}
        self._paths = list(dict.fromkeys(path for path in sys.path if self._is_inside(path)))
        for name in self._modules:
            del sys.modules[name]
        sys.path[:] = [path for path in sys.path if not self._is_inside(path)]

    def _holds(self, module: ModuleType) -> bool:
        try:
            names: Mapping[str, Any] = object.__getattribute__(module, "__dict__")  # getattr would load a lazy module
        except AttributeError:
            return False
        return any(map(self._is_inside, [names.get("__file__"), *_paths_of(names)]))

    def _is_inside(self, path: object) -> bool:
        return isinstance(path, str) and f"{path}/".startswith(self._inside)


def _paths_of(names: Mapping[str, Any]) -> list[object]:
    """Where a package lies: one without an `__init__.py` has no file. What is no package may call anything `__path__`."""
    try:
        return list(names.get("__path__", ()))
    except (TypeError, KeyError, AttributeError):
        return []
