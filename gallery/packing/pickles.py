"""Reads lists of strings and of NumPy arrays from pickles that nobody trusts.

A pickle is a program; Python's own unpickler runs it, importing and calling what it names. This
reader runs nothing: it walks through the opcodes as ``pickletools`` tells them apart, knows the
few that a list of strings or arrays needs, and keeps a name such as ``numpy.dtype`` as two words.
No name from the file is ever looked up. What a few names would have done with their arguments is
done here, with every size checked against the bytes that are there. Any other opcode or name is an
error. Formats: PEP 3154, PEP 574, CPython 3.11's Lib/pickletools.py; how NumPy 1 and 2 pickle
arrays: numpy/_core/src/multiarray/methods.c, ``array_reduce`` and ``array_reduce_ex``.
"""

from __future__ import annotations

import mmap
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import SetupProblem
from gallery.packing.pickled_arrays import (
    Blank,
    Name,
    NumberType,
    array_of,
    called,
    known_name,
    word,
)

__all__ = ["pickled_strings", "pickled_vectors"]

_MOST_BYTES: Final = 4_000_000_000
_MOST_OPCODES: Final = 20_000_000
_MOST_MARKS: Final = 100  # lists within lists; ours have one within none
_MOST_CHARACTERS: Final = 4096  # of a path


def pickled_strings(path: Path) -> list[str]:
    """The strings of a pickled list.

    Raises:
        SetupProblem: If the file can't be read, or is anything else.
    """
    content = _content(path, "a list of strings")
    if not all(isinstance(one, str) and len(one) <= _MOST_CHARACTERS for one in content):
        raise _refused(path, "a list of strings", "something in the list is none, or too long")
    return cast("list[str]", content)


def pickled_vectors(path: Path) -> NDArray[np.float32]:
    """The vectors of a pickled list of arrays, or of one array of two dimensions: float32 (n, D).

    Raises:
        SetupProblem: If the file can't be read, is anything else, or the vectors differ in length
            or are not finite.
    """
    what = "a list of vectors"
    content = _content(path, what)
    found = [one.content if isinstance(one, Blank) else one for one in content]
    arrays: list[NDArray[Any]] = [one for one in found if isinstance(one, np.ndarray)]
    if len(arrays) < len(found):
        raise _refused(path, what, "something in the list is no array of numbers")
    if sum(one.nbytes for one in arrays) > path.stat().st_size:
        raise _refused(path, what, "it repeats itself to be larger than it is")
    if len({one.size for one in arrays}) > 1:
        raise _refused(path, what, "they differ in length")
    if not arrays or not arrays[0].size:
        raise _refused(path, what, "it is empty")
    with np.errstate(over="ignore"):
        vectors = np.stack([one.reshape(-1).astype(np.float32) for one in arrays])
    if not np.isfinite(vectors).all():
        raise _refused(path, what, "one of them holds something that is no number")
    return vectors


def _content(path: Path, what: str) -> list[Any]:
    """The list that a file describes; an array of two dimensions counts as a list of its rows."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not 0 < size <= _MOST_BYTES:
                raise _refused(path, what, f"it has {size:,} bytes")
            # Read from the file itself, whatever size a string claims to have.
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                warnings.catch_warnings(action="ignore"),  # of odd escapes in damaged strings
            ):
                content = _Reader().read(cast("IO[bytes]", mapped))
    except OSError as problem:
        raise SetupProblem(f"{path} can't be read ({problem.strerror})") from problem
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as problem:
        raise _refused(path, what, _first_line(problem)) from problem
    if isinstance(content, Blank) and content.content is not None:
        content = list(content.content) if content.content.ndim > 1 else None
    elif isinstance(content, np.ndarray):
        content = list(content) if content.ndim > 1 else None
    if not isinstance(content, list):
        raise _refused(path, what, "it holds something else")
    return content


class _Reader:
    """Follows the opcodes of one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, file: IO[bytes]) -> Any:
        """What the pickle describes.

        Raises:
            ValueError: If it is not one of lists, strings, numbers and arrays of numbers; so do
                IndexError, KeyError and TypeError.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MOST_OPCODES:
                raise ValueError("it is too long")
            if opcode.name in _VALUES:
                self._stack.append(argument)
            elif opcode.name in _MEMO_PUTS:
                place = len(self._memo) if argument is None else int(argument)
                self._memo[place] = self._stack[-1]
            elif opcode.name in _MEMO_GETS:
                self._stack.append(self._memo[cast("int", argument)])
            elif opcode.name == "STOP":
                (content,) = self._stack
                return content
            else:
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise ValueError(f"it asks for {opcode.name}")
                step(self, argument)
        raise ValueError("it ends early")

    def nothing(self, _: Any) -> None:
        """PROTO and FRAME say how to read, not what."""

    def mark(self, _: Any) -> None:
        """Remembers where a list or tuple begins."""
        if len(self._marks) >= _MOST_MARKS:
            raise ValueError("it is nested too deeply")
        self._marks.append(len(self._stack))

    def constant(self, value: Callable[[], Any]) -> None:
        """Puts something new on the stack."""
        self._stack.append(value())

    def append(self, _: Any) -> None:
        """Adds the last value to the list before it."""
        value = self._stack.pop()
        self._list().append(value)

    def appends(self, _: Any) -> None:
        """Adds what follows the mark to the list before it."""
        values = self._since_mark()
        self._list().extend(values)

    def gather(self, _: Any) -> None:
        """LIST: a list of what follows the mark."""
        self._stack.append(self._since_mark())

    def tuple_since_mark(self, _: Any) -> None:
        """TUPLE: of what follows the mark."""
        self._stack.append(tuple(self._since_mark()))

    def tuple_of(self, count: int) -> None:
        """A tuple of the last values."""
        if len(self._stack) < count:
            raise ValueError("it ends early")
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(values)

    def name(self, argument: Any) -> None:
        """GLOBAL: two words in one argument."""
        self._stack.append(known_name(*str(argument).split(" ", 1)))

    def stacked_name(self, _: Any) -> None:
        """STACK_GLOBAL: two words from the stack."""
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("it names something that is no name")  # noqa: TRY004 - as the others
        self._stack.append(known_name(module, name))

    def reduce(self, _: Any) -> None:
        """What a call of the name would have made of its arguments."""
        arguments, name = self._stack.pop(), self._stack.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls something that is no name")  # noqa: TRY004 - as the others
        self._stack.append(called(name, arguments))

    def build(self, _: Any) -> None:
        """What is in an array, or in which order a number's bytes are."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Blank) and target.content is None and isinstance(state, tuple):
            _, shape, dtype, fortran, raw = state
            target.content = array_of(raw, dtype, shape, "F" if fortran else "C")
        elif isinstance(target, NumberType) and isinstance(state, tuple):
            _, order, *details = state
            if word(order) not in {"<", ">", "=", "|"} or any(details[:3]):
                raise ValueError("its arrays hold more than numbers")
            target.code = word(order) + target.code.lstrip("<>=|")
        else:
            raise ValueError("it changes something that can't be changed")

    def _list(self) -> list[Any]:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("it adds to something that is no list")  # noqa: TRY004 - as above
        return target

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values


_VALUES: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINSTRING", "BINSTRING", "UNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_MEMO_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_MEMO_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})

_STEPS: Final[dict[str, Callable[[_Reader, Any], None]]] = {
    "PROTO": _Reader.nothing,
    "FRAME": _Reader.nothing,
    "MARK": _Reader.mark,
    "NONE": lambda reader, _: reader.constant(lambda: None),
    "NEWTRUE": lambda reader, _: reader.constant(lambda: True),
    "NEWFALSE": lambda reader, _: reader.constant(lambda: False),
    "EMPTY_LIST": lambda reader, _: reader.constant(list),
    "EMPTY_TUPLE": lambda reader, _: reader.constant(tuple),
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "LIST": _Reader.gather,
    "TUPLE": _Reader.tuple_since_mark,
    "TUPLE1": lambda reader, _: reader.tuple_of(1),
    "TUPLE2": lambda reader, _: reader.tuple_of(2),
    "TUPLE3": lambda reader, _: reader.tuple_of(3),
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.stacked_name,
    "REDUCE": _Reader.reduce,
    "BUILD": _Reader.build,
}


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or ["it makes no sense"])[0][:200]


def _refused(path: Path, what: str, reason: str) -> SetupProblem:
    return SetupProblem(f"{path} is not {what} ({reason}); nothing in it was run")
