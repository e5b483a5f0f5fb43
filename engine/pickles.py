"""Reads lists of strings and of NumPy arrays from pickles that nobody trusts.

A pickle is a program for Python's unpickler, which imports and calls what the program names. The
unpickler here resolves a name only if it is on an allow-list, to a stand-in that checks every size
against the bytes that are there; no other name is looked up. Before a list from outside is
unpickled, its opcodes are checked, because the unpickler itself allocates what a few bytes claim.
Formats: PEP 3154, PEP 574; how NumPy 1 and 2 pickle arrays: numpy/_core/src/multiarray/methods.c,
``array_reduce`` and ``array_reduce_ex``; how joblib does: joblib/numpy_pickle.py.
"""

import io
import mmap
import pickle
import pickletools
import re
import warnings
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import SetupProblem

_MOST_BYTES = 4_000_000_000
_MOST_OPCODES = 20_000_000
_MOST_MARKS = 100  # lists within lists; ours have one within none
_MOST_CHARACTERS = 4_096  # of a path

_OPCODES = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINSTRING", "BINSTRING", "UNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    }
)


def pickled_strings(path: Path) -> list[str]:
    """The strings of a pickled list; raises SetupProblem if the file is anything else."""
    what = "a list of strings"
    content = _content(path, what)
    if not all(isinstance(one, str) and len(one) <= _MOST_CHARACTERS for one in content):
        raise _refused(path, what, "something in the list is none, or too long")
    return content


def pickled_vectors(path: Path) -> list[NDArray[np.float32]]:
    """The vectors of a pickled list of arrays, or of one array of two dimensions: float32 (D,).

    What the file repeats by memo is one array, however often it stands in the list. Raises
    SetupProblem if the file is anything else.
    """
    what = "a list of vectors"
    content = [getattr(one, "content", one) for one in _content(path, what)]
    arrays = {id(one): one for one in content}
    if not all(isinstance(one, np.ndarray) for one in arrays.values()):
        raise _refused(path, what, "something in the list is no array of numbers")
    sizes = {one.size for one in arrays.values()}
    if len(sizes) > 1:
        raise _refused(path, what, "they differ in length")
    if not any(sizes):
        raise _refused(path, what, "it is empty")
    with np.errstate(over="ignore"):
        for key, one in arrays.items():
            arrays[key] = one.reshape(-1).astype(np.float32, copy=False)
            if not np.isfinite(arrays[key]).all():
                raise _refused(path, what, "one of them holds something that is no number")
    return [arrays[id(one)] for one in content]


def joblib_arrays(data: bytes) -> list[NDArray[np.float32]]:
    """The list of float32 arrays in an uncompressed joblib file; raises nearly anything if damaged.

    joblib writes each array as a pickled description followed by its raw bytes in the middle of
    the pickle stream; the stand-in for the description reads them when its state is set.
    """
    stream = io.BytesIO(data)

    class Description:
        array: NDArray[np.float32]

        def __setstate__(self, state: dict[str, Any]) -> None:
            stream.read(stream.read(1)[0])  # alignment: a count, then that many bytes
            raw = stream.read(4 * prod(state["shape"]))
            self.array = _array(raw, state["dtype"], state["shape"], state["order"], most_sides=4)

    names = {("joblib.numpy_pickle", "NumpyArrayWrapper"): Description}
    return [description.array for description in _Unpickler(stream, names).load()]


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with an allow-list in place of imports."""

    def __init__(self, stream: IO[bytes], names: dict[tuple[str, str], Any]) -> None:
        super().__init__(stream, encoding="latin-1")  # Python 2's strings, as array bytes, too
        self._names = {**_NAMES, **names}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; any other name is an error."""
        key = module.replace("numpy.core", "numpy._core"), name
        if key not in self._names:
            raise pickle.UnpicklingError(f"it asks for {module[:60]}.{name[:60]}")
        return self._names[key]


def _content(path: Path, what: str) -> list[Any]:
    """The list in a file; an array of two dimensions counts as a list of its rows."""
    try:
        with (
            path.open("rb") as file,
            # Read from the file itself, whatever size a string claims to have.
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            warnings.catch_warnings(action="ignore"),  # of odd escapes in damaged strings
        ):
            stream = cast("IO[bytes]", mapped)
            _check_opcodes(stream, len(mapped))
            stream.seek(0)
            content = _Unpickler(stream, {}).load()
    except OSError as problem:
        raise SetupProblem(f"{path} can't be read ({problem.strerror})") from problem
    except Exception as problem:  # a damaged pickle raises nearly anything
        reason = (str(problem).splitlines() or ["it makes no sense"])[0][:200]
        raise _refused(path, what, reason) from problem
    content = getattr(content, "content", content)
    if isinstance(content, np.ndarray) and content.ndim > 1:
        content = list(content)
    if not isinstance(content, list):
        raise _refused(path, what, "it holds something else")
    return content


def _check_opcodes(stream: IO[bytes], size: int) -> None:
    """Passes opcodes that a list of strings or arrays needs and that claim no more than is there.

    ``pickletools`` reads every argument from the stream, so a string that claims to be longer than
    the file is an error; memo indices, frames and marks are what remains.
    """
    marks = 0
    if size > _MOST_BYTES:
        raise ValueError("it is too long")
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        marks += (opcode.name == "MARK") - (opcode.name in {"LIST", "APPENDS", "TUPLE"})
        if opcode.name not in _OPCODES:
            raise ValueError(f"it asks for {opcode.name}")
        if count > _MOST_OPCODES or marks > _MOST_MARKS:
            raise ValueError("it is too long or nested too deeply")
        most = count if opcode.name.endswith("PUT") else size if opcode.name == "FRAME" else None
        if most is not None and not 0 <= int(argument or 0) <= most:
            raise ValueError("it claims more than it holds")


class _NumberType:
    """Stands in for ``numpy.dtype``: a type of numbers as NumPy spells it."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = _word(code)

    def __setstate__(self, state: Any) -> None:
        _, order, *details = state
        if _word(order) not in {"<", ">", "=", "|"} or any(details[:3]):
            raise ValueError("its arrays hold more than numbers")
        self.code = _word(order) + self.code.lstrip("<>=|")


class _Array:
    """Stands in for an array of which the file says later what is in it."""

    content: NDArray[Any] | None = None

    def __init__(self, kind: object, shape: object, code: object) -> None:
        """Shape and type are made up; the state that follows has the real ones."""
        if kind is not _NDARRAY or shape != (0,) or _word(code) != "b":
            raise ValueError("an array that makes no sense")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if self.content is not None:
            raise ValueError("it changes something that can't be changed")
        self.content = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(
    raw: object, dtype: object, shape: Any, order: object, *, most_sides: int = 2
) -> NDArray[Any]:
    """An array over bytes of the file; no memory is asked for that is not filled."""
    if not isinstance(dtype, _NumberType) or not re.fullmatch(r"[<>=|]?f[248]", dtype.code):
        raise ValueError("its arrays hold something else than floating-point numbers")
    content = raw.encode("latin-1") if isinstance(raw, str) else raw  # str: Python 2's bytes
    sides = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not isinstance(content, bytes | bytearray) or not all(
        type(side) is int and side >= 0 for side in sides
    ):
        raise ValueError("an array that makes no sense")
    numbers = np.frombuffer(content, np.dtype(dtype.code))
    if len(sides) > most_sides or prod(sides) != numbers.size:
        raise ValueError("an array of another size than its content")
    return numbers.reshape(sides, order="F" if _word(order) == "F" else "C")


def _encode(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or _word(encoding) not in {"latin1", "latin-1"}:
        raise ValueError("bytes that make no sense")
    return text.encode("latin-1")


def _word(value: object) -> str:
    """A short text, also where Python 2 wrote it as bytes; raises ValueError for others."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError("a word that makes no sense")
    return text


_NDARRAY = object()
_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _NumberType,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): lambda: b"",  # how Python 3 writes no bytes at all in protocol 2
    ("__builtin__", "bytes"): lambda: b"",
}


def _refused(path: Path, what: str, reason: str) -> SetupProblem:
    return SetupProblem(f"{path} is not {what} ({reason}); nothing in it was run")
