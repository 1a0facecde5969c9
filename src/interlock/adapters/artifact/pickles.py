"""
Walks a pickle and says what loading it would name, call and change. Nothing is imported and nothing of it is called.

Python's own unpickler does the walking, so that every trick with memo, frames and protocols is read as it would be loaded; in place of
whatever the pickle names it is given stand-ins that note what is done to them. Numbers are read as the C unpickler reads them: where it
is more lenient and this one gave up, a pickle would be taken for text.
"""

import _compat_pickle
import io
import logging
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar

from interlock.model.artifact import Name, Use

JOBLIB_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_BUILDERS = {("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("copyreg", "__newobj_ex__")}
_ITEM = re.compile(r"[|<>=]?[?biuhlqBHILQefdgFDGSUVOMmc]\d*")
_OCTAL = re.compile(rb"[+-]?0[0-7]+")
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Walk:
    """
    What one stream held. error: why it could not be walked to its end.

    parts: the pickles alone, for who knows nothing of joblib's raw arrays between the opcodes; empty when there were no such arrays.
    """

    names: set[Name] = field(default_factory=set)
    pickle_count: int = 0
    error: str = ""
    parts: tuple[bytes, ...] = ()

    @property
    def does_something(self) -> bool:
        """Whether loading it calls, or changes, anything at all."""
        return any(name.use != "named" for name in self.names)


def walk(stream: IO[bytes], *, as_joblib: bool) -> Walk:
    """
    Every pickle in the stream, one after the other, to its last byte.

    as_joblib: read it as `joblib.load` does, where raw arrays stand between the opcodes; otherwise as `pickle.load` does.
    """
    found, end = Walk(), _size(stream)
    arrays = _Arrays()
    stream.seek(0)
    try:
        while stream.tell() < end:
            _Walker(stream, found, arrays if as_joblib else None).load()
            found.pickle_count += 1
    except Exception as error:  # the outcome changes: what cannot be walked is refused
        logger.debug("walking a pickle", exc_info=True)
        found.error = f"{type(error).__name__} at byte {stream.tell()}: {' '.join(str(error).split())[:120]}"
    if arrays.places:
        found.parts = (b"".join(_between(stream, arrays.places)), *(_read(stream, *place) for place in arrays.nested))
    return found


@dataclass(slots=True)
class _Arrays:
    """From which byte to which joblib's arrays lie; the nested ones are pickles themselves."""

    places: list[tuple[int, int]] = field(default_factory=list)
    nested: list[tuple[int, int]] = field(default_factory=list)


class _StandIn:
    """In place of what the pickle names, or of what a call would have returned. Takes everything, does nothing."""

    __slots__ = ("args", "made_by", "origin", "state", "walker")
    walker: "_Walker"
    origin: tuple[str, str]
    made_by: tuple[str, str] | None  # the origin of what was called to make this; None for what is named itself
    args: tuple[Any, ...]
    state: Any

    def __new__(cls: Any, *args: Any, **keywords: Any) -> Any:
        """What NEWOBJ calls, with an instance in place of the class."""
        if not isinstance(cls, _StandIn):
            raise pickle.UnpicklingError("a class was expected")
        return cls(*args, **keywords)

    def __call__(self, *args: Any, **keywords: Any) -> "_StandIn":
        self.note("called" if self.made_by is None else "result_called")
        made_by = self.made_by or self.origin
        if self.origin in _BUILDERS and args and isinstance(args[0], _StandIn) and args[0].made_by is None:
            args[0].note("called")
            made_by = args[0].origin
        return _stand_in(self.walker, self.origin, made_by=made_by, args=args)

    def __setstate__(self, state: Any) -> None:
        if self.made_by is None:
            self.note("changed")
        self.state = state

    def note(self, use: Use) -> None:
        module, name = self.made_by or self.origin
        self.walker.found.names.add(Name(module, name, use))

    def _take(self, *_: Any) -> None:
        if self.made_by is None:
            self.note("changed")

    append = extend = add = __setitem__ = _take

    def __iter__(self) -> Iterator[Any]:
        """As the arguments of a call: what is named may be a tuple, and then the call is made."""
        yield self

    def keys(self) -> tuple[()]:
        """As the keyword arguments of a call."""
        return ()

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)


def _stand_in(
    walker: "_Walker", origin: tuple[str, str], *, made_by: tuple[str, str] | None = None, args: tuple[Any, ...] = ()
) -> _StandIn:
    made = object.__new__(_StandIn)
    made.walker, made.origin, made.made_by, made.args, made.state = walker, origin, made_by, args, None
    return made


class _Walker(pickle._Unpickler):
    """One pickle. `arrays` collects the places of joblib's arrays; None walks the stream as plain pickle."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: IO[bytes], found: Walk, arrays: _Arrays | None) -> None:
        super().__init__(stream)
        self.stream, self.found, self._arrays = stream, found, arrays

    def load(self) -> Any:
        loaded = super().load()
        self._require_whole_frame()  # a second reader of the same stream would begin there
        return loaded

    def find_class(self, module: str, name: str) -> _StandIn:
        if self.proto < 3:  # type: ignore[attr-defined]  # names of Python 2, which the unpickler translates
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name))
        self.found.names.add(Name(module, name))
        return _stand_in(self, (module, name))

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension code {code}, which names something that only the loading process knows")

    def persistent_load(self, pid: Any) -> _StandIn:
        return _stand_in(self, ("", "persistent"), made_by=("", "persistent"))

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], _StandIn):  # type: ignore[attr-defined]  # C goes on where the state, a name, is None
            self.stack.pop()  # type: ignore[attr-defined]
            return
        super().load_build()  # type: ignore[misc]
        top = self.stack[-1]  # type: ignore[attr-defined]
        if self._arrays is not None and isinstance(top, _StandIn) and top.made_by == JOBLIB_WRAPPER:
            begin = self.stream.tell()
            if self._pass_array(top.state):
                self._arrays.nested.append((begin, self.stream.tell()))
            self._arrays.places.append((begin, self.stream.tell()))

    dispatch[pickle.BUILD[0]] = load_build

    def load_appends(self) -> None:
        if self.stack:  # type: ignore[attr-defined]
            super().load_appends()  # type: ignore[misc]
        else:  # nothing is added, and then C does not ask to what
            self.pop_mark()  # type: ignore[attr-defined]

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_additems(self) -> None:
        if self.stack:  # type: ignore[attr-defined]
            super().load_additems()  # type: ignore[misc]
        else:
            self.pop_mark()  # type: ignore[attr-defined]

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_int(self) -> None:
        line = self.readline()  # type: ignore[attr-defined]
        self.append({b"00\n": False, b"01\n": True}[line] if line in (b"00\n", b"01\n") else _number_of_c(line))  # type: ignore[attr-defined]

    dispatch[pickle.INT[0]] = load_int

    def load_long(self) -> None:
        line = self.readline().split(b"\0")[0].strip()  # type: ignore[attr-defined]
        self.append(_number_of_c(line.removesuffix(b"L")))  # type: ignore[attr-defined]

    dispatch[pickle.LONG[0]] = load_long

    def load_float(self) -> None:
        self.append(float(self.readline().split(b"\0")[0]))  # type: ignore[attr-defined]

    dispatch[pickle.FLOAT[0]] = load_float

    def _pass_array(self, state: Any) -> bool:
        """Over the raw bytes of one array, or through the pickle that an array of objects is: then True."""
        self._require_whole_frame()
        if not isinstance(state, dict) or not {"shape", "dtype"} <= state.keys():
            raise pickle.UnpicklingError("an array of joblib without shape and dtype")
        if (dtype := _real_dtype(state["dtype"])).hasobject:
            _Walker(self.stream, self.found, None).load()
            return True
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.seek(int.from_bytes(self.stream.read(1), "little"), os.SEEK_CUR)
        count = 1
        for size in state["shape"]:
            if type(size) is not int or size < 0:
                raise pickle.UnpicklingError(f"an array of joblib with a side of {str(size)[:20]}")
            count *= size
        if (end := self.stream.tell() + count * dtype.itemsize) > _size(self.stream):
            raise pickle.UnpicklingError("an array of joblib that is longer than the file")
        self.stream.seek(end)
        return False

    def _require_whole_frame(self) -> None:
        frame = self._unframer.current_frame  # type: ignore[attr-defined]
        if frame is not None and frame.read(1):
            raise pickle.UnpicklingError("bytes behind the end, within the same frame")


def _number_of_c(line: bytes) -> int:
    """As the C unpickler reads it: to the first zero byte, and octal where a zero stands in front."""
    text = line.split(b"\0")[0].strip()
    return int(text, 8) if _OCTAL.fullmatch(text) else int(text or b"0", 0)


def _real_dtype(found: Any) -> Any:
    """The dtype that numpy would make of it, by numpy itself: its own rules decide how many bytes an item has."""
    import numpy as np

    if not isinstance(found, _StandIn) or found.made_by != ("numpy", "dtype") or not found.args:
        raise pickle.UnpicklingError("an array of joblib whose dtype is none of numpy's")
    code = found.args[0]
    if not isinstance(code, str) or not _ITEM.fullmatch(code):
        raise pickle.UnpicklingError(f"an array of joblib with the dtype {str(code)[:40]!r}")
    dtype = np.dtype(code, False, True)
    if found.state is not None:
        dtype.__setstate__(_real(found.state))  # type: ignore[attr-defined]
    return dtype


def _real(state: Any) -> Any:
    if isinstance(state, _StandIn):
        return _real_dtype(state)
    if isinstance(state, tuple):
        return tuple(_real(item) for item in state)
    if isinstance(state, dict):
        return {key: _real(item) for key, item in state.items()}
    if state is None or isinstance(state, int | str | bytes):
        return state
    raise pickle.UnpicklingError(f"an array of joblib whose dtype holds {type(state).__name__}")


def _between(stream: IO[bytes], arrays: list[tuple[int, int]]) -> Iterator[bytes]:
    at = 0
    for begin, end in arrays:
        yield _read(stream, at, begin)
        at = end
    yield _read(stream, at, _size(stream))


def _read(stream: IO[bytes], begin: int, end: int) -> bytes:
    stream.seek(begin)
    return stream.read(end - begin)


def _size(stream: IO[bytes]) -> int:
    at = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    stream.seek(at)
    return end
