"""Hostile files, written opcode by opcode, and healthy ones. Nothing here is ever loaded."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interlock.adapters.artifact.files import Reader
from interlock.adapters.artifact.mlmodel import misleading_mlmodels
from interlock.control.gates.artifact import judge_artifact
from interlock.model.artifact import ArtifactReading, FileReading, Requirement, SignatureReading
from interlock.model.digest import artifact_manifest, manifest_digest
from interlock.model.verdict import Verdict
from interlock.profile.gates import Artifact

POLICY = Artifact(allowed_modules=("sklearn", "numpy", "scipy", "pandas", "joblib"), max_code_severity="low", requirements="same_minor")
CANARY = "/tmp/interlock-nothing-of-this-may-run"  # what every payload would touch
SHELL = f"touch {CANARY}"
CODE = f"open({CANARY!r}, 'w')"


def calling(module: str, name: str, *arguments: str) -> bytes:
    """A pickle of protocol 4 whose loading calls `module.name(*arguments)`."""
    count = {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}[len(arguments)]
    return b"\x80\x04" + _text(module) + _text(name) + b"\x93" + b"".join(map(_text, arguments)) + count + b"R."


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def zipped(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def array_of_objects(content: bytes) -> bytes:
    """An .npy file whose array is the given pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return header.getvalue() + content


def cut_zip(content: bytes) -> bytes:
    """An archive whose only member does not have the sum that it claims: lenient readers load it all the same."""
    packed = bytearray(zipped({"archive/data.pkl": content}))
    packed[14] ^= 0xFF  # in the local header ...
    packed[packed.rindex(b"PK\x01\x02") + 16] ^= 0xFF  # ... and in the directory
    return bytes(packed)


def reading_of(directory: Path, files: Mapping[str, bytes], **changes: object) -> ArtifactReading:
    """Write the files, and read them as the gate's reading process does. Everything else about the version is as it should be."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    manifest = artifact_manifest(directory)
    found = [reading for name in sorted(manifest) for reading in _readings(directory, name)]
    found += misleading_mlmodels(directory, {reading.path: reading.kind for reading in found})
    healthy: dict[str, object] = {
        "digest": manifest_digest(manifest),
        "manifest": manifest,
        "files": tuple(found),
        "code": (),
        "requirements": (Requirement("numpy==2.0.0", "requirements.txt", "2.0.0", "same_version"),),
        "signature": SignatureReading(2, 1, 5),
    }
    return ArtifactReading(**{**healthy, **changes})  # type: ignore[arg-type]


def _readings(directory: Path, name: str) -> list[FileReading]:
    return list(Reader().read(directory / name, name))


def judged(tmp_path: Path, files: dict[str, bytes], policy: Artifact = POLICY, **changes: Any) -> Verdict:
    reading = reading_of(tmp_path, files, **changes)
    return judge_artifact(policy, reading, digest=reading.digest)


def replace_modules(policy: Artifact, more: tuple[str, ...]) -> Artifact:
    return policy.model_copy(update={"allowed_modules": (*policy.allowed_modules, *more)})


ATTACK = calling("os", "system", SHELL)
CALL_IN_TEXT = b"cos\nsystem\n(S'" + SHELL.encode() + b"'\ntR."
HOSTILE: dict[str, tuple[str, bytes]] = {
    "os.system": ("model.pkl", ATTACK),
    "posix.system": ("model.pkl", calling("posix", "system", SHELL)),
    "subprocess": ("model.pkl", calling("subprocess", "check_output", SHELL)),
    "eval": ("model.pkl", calling("builtins", "eval", CODE)),
    "exec of protocol 0": ("model.pkl", b"c__builtin__\nexec\n(S'" + CODE.replace("'", '"').encode() + b"'\ntR."),
    "INST": ("model.pkl", b"(S'" + SHELL.encode() + b"'\nios\nsystem\n."),
    "OBJ": ("model.pkl", b"(cos\nsystem\nS'" + SHELL.encode() + b"'\no."),
    "runpy": ("model.pkl", calling("runpy", "run_path", CANARY)),
    "importlib": ("model.pkl", calling("importlib", "import_module", "antigravity")),
    "pty": ("model.pkl", calling("pty", "spawn", SHELL)),
    "pip": ("model.pkl", calling("pip", "main", "install")),
    "timeit": ("model.pkl", calling("timeit", "timeit", CODE)),
    "bdb": ("model.pkl", calling("bdb", "Bdb")),
    "idlelib": ("model.pkl", calling("idlelib.run", "Executive", "x")),
    "an unknown module": ("model.pkl", calling("somebody", "Elses", "x")),
    "functools.partial": ("model.pkl", calling("functools", "partial", "x")),
    "operator.attrgetter": ("model.pkl", calling("operator", "attrgetter", "x")),
    "getattr": ("model.pkl", calling("builtins", "getattr", "x", "y")),
    "code by value": ("model.pkl", calling("types", "CodeType")),
    "numpy's runstring": ("model.pkl", calling("numpy.testing._private.utils", "runstring", CODE, "x")),
    "numpy's f2py": ("model.pkl", calling("numpy.f2py.crackfortran", "myeval", CODE)),
    "numpy's ctypeslib": ("model.pkl", calling("numpy.ctypeslib", "load_library", "x", "y")),
    "numpy's ufunc by name": ("model.pkl", calling("numpy._core", "_ufunc_reconstruct", "os", "system")),
    "numpy.load": ("model.pkl", calling("numpy", "load", CANARY)),
    "pandas.read_pickle": ("model.pkl", calling("pandas", "read_pickle", CANARY)),
    "pandas.eval": ("model.pkl", calling("pandas.core.computation.eval", "eval", CODE)),
    "joblib.load": ("model.pkl", calling("joblib", "load", CANARY)),
    "sklearn's fetchers": ("model.pkl", calling("sklearn.datasets", "load_files", "/etc")),
    "a plain function of sklearn": ("model.pkl", calling("sklearn.utils", "resample", "x")),
    "an attribute of an attribute": ("model.pkl", calling("sklearn.utils.fixes", "os.system", SHELL)),
    "a module found in a module": ("model.pkl", calling("sklearn.base", "warnings")),
    "a class that calls its argument": ("model.pkl", calling("scipy.integrate", "RK45", "x")),
    "a changed class": ("model.pkl", b"\x80\x04" + _text("sklearn.base") + _text("BaseEstimator") + b"\x93}" + _text("fit") + b"Nsb."),
    "what a class returned is called": ("model.pkl", calling("sklearn.base", "BaseEstimator")[:-1] + b")R."),
    "STACK_GLOBAL from the memo": (
        "model.pkl",
        b"\x80\x04" + _text("os") + b"\x940" + _text("system") + b"\x940h\x00h\x01\x93" + _text(SHELL) + b"\x85R.",
    ),
    "an extension code": ("model.pkl", b"\x80\x02\x82\x01)R."),
    "a second pickle in the file": ("model.pkl", pickle.dumps({"a": 1}) + ATTACK),
    "a second pickle within the frame of the first": (
        "model.pkl",
        b"\x80\x04\x95" + len(b"N." + ATTACK).to_bytes(8, "little") + b"N." + ATTACK,
    ),
    "a pickle that runs before it breaks": ("model.pkl", ATTACK[:-1] + b"\xff\xff and more"),
    "a pickle cut off": ("model.pkl", pickle.dumps(list(range(1000)))[:-5]),
    "bytes behind the end": ("model.pkl", pickle.dumps({"a": 1}) + b"\x00\x01\x02"),
    "a pickle named .bin": ("weights.bin", ATTACK),
    "a pickle named .dat": ("weights.dat", ATTACK),
    "a pickle named .txt": ("notes.txt", b"cos\nsystem\n(S'" + SHELL.encode() + b"'\ntR."),
    "a pickle named .npy": ("array.npy", ATTACK),
    "a pickle without a name's ending": ("data", ATTACK),
    "gzip": ("model.pkl", gzip.compress(ATTACK)),
    "zlib": ("model.joblib", zlib.compress(ATTACK)),
    "bzip2": ("model.joblib", bz2.compress(ATTACK)),
    "xz": ("model.joblib", lzma.compress(ATTACK)),
    "old lzma": ("model.joblib", lzma.compress(ATTACK, format=lzma.FORMAT_ALONE)),
    "packed twice": ("model.bin", zlib.compress(gzip.compress(ATTACK))),
    "a pickle in a zip, as torch has it": ("model.pt", zipped({"archive/data.pkl": ATTACK, "archive/version": b"3"})),
    "a pickle in a zip in a zip": ("model.zip", zipped({"inner": zipped({"data": ATTACK})})),
    "a zip with a wrong sum": ("model.pt", cut_zip(ATTACK)),
    "bytes in front of a zip": ("model.bin", b"#!/bin/sh\n" + zipped({"data": ATTACK})),
    "Python in a zip": ("code.zip", zipped({"helper.py": b"import os"})),
    "an array of objects": ("array.npy", array_of_objects(ATTACK)),
    "an array of objects in an .npz": ("arrays.npz", zipped({"a.npy": array_of_objects(ATTACK)})),
    "an array with more behind it": ("array.npy", array_of_objects(b"").replace(b"|O", b"|u1") + b"\0\0\0"),
    "compiled Python": ("code/helper.cpython-311.pyc", b"\xa7\r\r\n" + b"\0" * 60),
    "a shared library": ("code/helper.so", b"\x7fELF" + b"\0" * 60),
    "Python that does not parse": ("code/helper.py", b"def f(:\n"),
    "JSON that is none": ("input_example.json", b"{"),
    "YAML that is none": ("conda.yaml", b"a: [\n"),
    "YAML that makes objects": ("MLmodel", b"!!python/object/apply:os.system ['x']\n"),
    "a loader of somebody else's": ("MLmodel", b"flavors: {python_function: {loader_module: os.path}}\n"),
    **{
        f"an MLmodel with {what}": ("MLmodel", b"flavors: {" + content.encode() + b"}\n")
        for what, content in {
            "a model elsewhere": "python_function: {loader_module: mlflow.sklearn, model_path: ../other/model.pkl}",
            "a model at an absolute path": "python_function: {loader_module: mlflow.sklearn, model_path: /tmp/model.pkl}",
            "a model that is not there": "sklearn: {pickled_model: model.pkl}",
            "data elsewhere": "python_function: {loader_module: mlflow.statsmodels, data: data/../../other}",
            "data that is the whole version": "python_function: {loader_module: mlflow.sklearn, data: .}",
            "a model that is text": "python_function: {loader_module: mlflow.sklearn, model_path: MLmodel}",
            "a Python model elsewhere": "python_function: {loader_module: mlflow.pyfunc.model, python_model: ../other/python_model.pkl}",
            "an artifact elsewhere": "python_function: {artifacts: {scorer: {path: ../other/scorer.joblib, uri: /tmp/x}}}",
            "code elsewhere": "python_function: {code: ../other}",
            "code that is not there": "python_function: {code: code}",
            "a path under a key that nobody knows": "python_function: {whatever: {deep: [../other]}}",
            "a code loader without code": "python_function: {loader_module: mlflow.pyfunc.loaders.code_model}",
            "code named and not there": "python_function: {loader_module: mlflow.pyfunc.model, model_code_path: model.py}",
            "code that is no Python": "python_function: {loader_module: mlflow.pyfunc.model, model_code_path: /tmp/MLmodel}",
            "a loader of MLflow's that runs what it finds": "python_function: {loader_module: mlflow.pytorch}",
            "a class to be called": "xgboost: {model_class: os.System}",
        }.items()
    },
    "an input example elsewhere": ("MLmodel", b"saved_input_example_info: {artifact_path: ../other/input_example.json}\n"),
    "an MLmodel further down": ("data/MLmodel", b"flavors: {python_function: {model_path: ../../../other/model.pkl}}\n"),
    "YAML with aliases": ("conda.yaml", b"a: &a [x]\nb: *a\n"),
    "YAML with merge keys": ("MLmodel", b"a: {<<: {b: c}}\n"),
    "a number that only C reads": ("weights.txt", b"I010\n0" + CALL_IN_TEXT),
    "a number with a sign that only C reads": ("notes.md", b"I-007\n0" + CALL_IN_TEXT),
    "a number with a zero byte": ("weights.txt", b"I1\0x\n0" + CALL_IN_TEXT),
    "nothing added to what is no list": ("notes.txt", b"N(e0" + CALL_IN_TEXT),
    "a state that is named": ("notes.txt", b"cos\nsystem\n(S'" + SHELL.encode() + b"'\ntcsomewhere\nNONE\nbR."),
    "arguments that are named": ("notes.txt", b"cos\nsystem\ncsomewhere\nARGUMENTS\nR."),
    "a skops schema of another type": (
        "model.skops",
        zipped({"schema.json": b'{"__class__": "system", "__module__": "os", "__loader__": "ObjectNode"}'}),
    ),
    "raw arrays that are opcodes for plain pickle": ("model.pkl", b""),  # made by the test: it needs joblib's own writer
}
