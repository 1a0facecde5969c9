"""
Which names a pickle may carry. What is not allowed is refused; a list of the dangerous ones alone is never complete.

Three lines of defence, all of which must hold: the module's root is allowed by the profile (or the name is one of a few harmless ones
of Python itself); the name is not known to run what it is given; and loading calls only what makes an object: classes, by their
capital letter, and the constructors listed here, which were read one by one.
"""

import re
import sys
from collections.abc import Sequence

from interlock.model.artifact import Name


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Of Python itself and of joblib's format: they make plain objects and call nothing of what they are given but a class.
HARMLESS = _words(
    """
    builtins.bool builtins.bytearray builtins.bytes builtins.complex builtins.dict builtins.float builtins.frozenset builtins.int
    builtins.list builtins.object builtins.range builtins.set builtins.slice builtins.str builtins.tuple
    collections.Counter collections.OrderedDict collections.defaultdict collections.deque
    copyreg.__newobj__ copyreg.__newobj_ex__ copyreg._reconstructor _codecs.encode
    datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone decimal.Decimal fractions.Fraction uuid.UUID
    joblib.numpy_pickle.NumpyArrayWrapper re._compile
    """
)
# With code in the pickle itself there is nothing left to protect: cloudpickle is allowed as a whole, or not at all.
CLOUDPICKLE = re.compile(
    r"cloudpickle(\.cloudpickle(_fast)?)?\.(_\w+|subimport|dynamic_subimport|parametrized_type_hint_getinitargs)"
    r"|types\.(CodeType|FunctionType|ModuleType|SimpleNamespace|CellType|MappingProxyType)|builtins\.(type|getattr|property|classmethod|staticmethod)"
    r"|abc\.(ABC|ABCMeta|abstractmethod)|typing\.\w+|collections\.abc\.[A-Z]\w*|__future__\.\w+"
)
# Lower-case names that make an object of numbers, strings and arrays, and call nothing that they are given.
CONSTRUCTORS = re.compile(
    r"numpy\.(dtype|ndarray|bool_?|u?int(8|16|32|64|c|p)?|float(16|32|64|128)?|complex(64|128|256)?|str_|bytes_|datetime64|timedelta64|longdouble)"
    r"|numpy\._?core\.multiarray\.(_reconstruct|scalar)|numpy\._?core\.numeric\._frombuffer|numpy\.ma\.core\._mareconstruct"
    r"|numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor"
    r"|pandas\.(_libs\.internals\._unpickle_block|core\.internals\.blocks\.new_block|core\.indexes\.base\._new_Index)"
    r"|pandas\.core\.indexes\.(datetimes\._new_DatetimeIndex|period\._new_PeriodIndex)"
    r"|pandas\._libs\.tslibs\.(timestamps\._unpickle_timestamp|timedeltas\._timedelta_unpickle|nattype\._nat_unpickle)"
    r"|scipy\.sparse\.(_?\w+\.)?(bsr|coo|csc|csr|dia|dok|lil)_(matrix|array)"
    r"|scipy\.interpolate\.(_\w+\.)?interp1d|scipy\.stats\._distn_infrastructure\.rv_\w+_frozen|scipy\.stats\._\w+_distns\.\w+_gen"
    r"|sklearn\.(neighbors|metrics)\.\w+\.newObj"
    r"|[\w.]+\.__pyx_unpickle_\w+"
)
# Parts of allowed packages that run, load or fetch what they are given. Any part of the module's path; the name does not matter.
EXECUTING_PARTS = _words(
    """
    tests testing _testing conftest externals distutils f2py setup __main__ __check_build npyio _npyio_impl _datasource ctypeslib
    computation io datasets _testutils _build_utils _show_versions _joblib parallel estimator_checks exec_command
    """
)
EXECUTING_NAMES = _words(
    """
    eval exec execfile compile system popen Popen run call check_call check_output run_command runstring rundocs myeval spawn main
    load loads load_module load_library import_module __import__ import_optional_dependency getattr setattr delattr open memmap fromfile
    genfromtxt loadtxt save savez savetxt tofile query to_pickle vectorize frompyfunc fromfunction apply_along_axis piecewise DataSource
    NpzFile HDFStore ExcelFile ExcelWriter CDLL PyDLL WinDLL LowLevelCallable Memory Parallel delayed Thread Process Pool ThreadPool
    Timer _ufunc_reconstruct methodcaller attrgetter partial reduce _load_pyfunc ScalarFunction VectorFunction MapWrapper
    RK23 RK45 DOP853 Radau BDF LSODA OdeSolver
    """
)
EXECUTING_BEGINNINGS = ("read_", "fetch_", "load_", "open_", "save_", "exec_", "run_")
# Python's own, whose names reach everything: no profile can allow them.
GADGET_ROOTS = _words("functools operator itertools importlib builtins __builtin__ os posix nt sys subprocess")


def why_refused(name: Name, allowed_modules: Sequence[str]) -> str | None:
    """Why this name may not be in a pickle; None when it may."""
    has_cloudpickle = "cloudpickle" in allowed_modules
    if has_cloudpickle and is_code_by_value(name):
        return None
    if name.use in ("changed", "result_called"):
        return f"{name.label}: loading it {'changes its attributes' if name.use == 'changed' else 'calls what it returned'}"
    if name.label in HARMLESS:
        return None
    root = name.module.split(".")[0]
    if root in GADGET_ROOTS or root not in allowed_modules:
        return f"{name.label}: {root or 'no module'} is not among the allowed modules"
    if _is_executing(name):
        return f"{name.label}: it runs, loads or fetches what it is given"
    if name.use == "called" and not _makes_an_object(name):
        return f"{name.label}: loading calls it, and it is no class by its name"
    return None


def is_code_by_value(name: Name) -> bool:
    """Whether this name is there because code itself is in the pickle."""
    return CLOUDPICKLE.fullmatch(name.label) is not None and name.label not in HARMLESS


def _is_executing(name: Name) -> bool:
    if "." in name.name:  # an attribute of an attribute reaches everything that the module has imported
        return True
    is_module = name.name in sys.stdlib_module_names
    return is_module or name.name in EXECUTING_NAMES or name.name.startswith(EXECUTING_BEGINNINGS) or _is_in_executing_part(name)


def _is_in_executing_part(name: Name) -> bool:
    return not EXECUTING_PARTS.isdisjoint(name.module.split("."))


def _makes_an_object(name: Name) -> bool:
    return name.name.lstrip("_")[:1].isupper() or CONSTRUCTORS.fullmatch(name.label) is not None
