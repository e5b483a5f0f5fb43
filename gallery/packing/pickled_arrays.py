"""What a pickle of arrays may name, and what comes of it: arrays over bytes that are there.

The names are NumPy's and Python's; nothing of either is looked up or called for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blank", "Name", "NumberType", "array_of", "called", "known_name", "word"]

_MOST_SIDE: Final = 4_000_000_000

_FLOAT = re.compile(r"[<>=|]?f[248]")

_ARRAY = ("numpy", "ndarray")
_DTYPE = ("numpy", "dtype")
_MODULES = {
    "numpy.core.multiarray": "multiarray",
    "numpy._core.multiarray": "multiarray",
    "numpy.core.numeric": "numeric",
    "numpy._core.numeric": "numeric",
    "builtins": "builtins",
    "__builtin__": "builtins",
}
"""NumPy 2 moved numpy.core; Python 2 called the module of built-in names otherwise."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name that stands in the file: two words, nothing more."""

    module: str
    name: str


@dataclass(slots=True)
class NumberType:
    """A type of numbers, as ``numpy.dtype`` would spell it."""

    code: str


class Blank:
    """An array of which the file has not said yet what is in it."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: NDArray[Any] | None = None


def known_name(module: str, name: str) -> Name:
    """A name that lists of arrays need; raises ValueError for any other."""
    found = Name(_MODULES.get(module, module), name)
    if found not in _CALLS and found != Name(*_ARRAY):
        raise ValueError(f"it asks for {module[:60]}.{name[:60]}")
    return found


def array_of(raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """An array over bytes of the file; no memory is asked for that is not filled."""
    if not isinstance(dtype, NumberType) or not _FLOAT.fullmatch(dtype.code):
        raise ValueError("its arrays hold something else than floating-point numbers")
    content = raw.encode("latin-1") if isinstance(raw, str) else raw  # str: Python 2's bytes
    sides = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not isinstance(content, bytes | bytearray) or not all(
        type(side) is int and 0 <= side <= _MOST_SIDE for side in sides
    ):
        raise ValueError("an array that makes no sense")
    numbers = np.frombuffer(content, np.dtype(dtype.code))
    if len(sides) > 2 or prod(sides) != numbers.size:
        raise ValueError("an array of another size than its content")
    return numbers.reshape(sides, order="F" if word(order) == "F" else "C")


def _blank(kind: Any, shape: Any, code: Any) -> Blank:
    """``_reconstruct``: its shape and type are made up, and replaced by what follows."""
    if kind != Name(*_ARRAY) or shape != (0,) or word(code) != "b":
        raise ValueError("an array that makes no sense")
    return Blank()


def _dtype(code: Any, *_: Any) -> NumberType:
    return NumberType(word(code))


def _encoded(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or word(encoding) not in {"latin1", "latin-1"}:
        raise ValueError("bytes that make no sense")
    return text.encode("latin-1")


def _no_bytes(*arguments: Any) -> bytes:
    """How Python 3 writes no bytes at all in protocol 2."""
    if arguments:
        raise ValueError("bytes that make no sense")
    return b""


def word(value: Any) -> str:
    """A short text, also where Python 2 wrote it as bytes; raises ValueError for others."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError("a word that makes no sense")
    return text


_CALLS: Final[dict[Name, Callable[..., Any]]] = {
    Name(*_DTYPE): _dtype,
    Name("multiarray", "_reconstruct"): _blank,
    Name("numeric", "_frombuffer"): array_of,
    Name("_codecs", "encode"): _encoded,
    Name("builtins", "bytes"): _no_bytes,
}


def called(name: Name, arguments: tuple[Any, ...]) -> Any:
    """What a call of that name would have made.

    Raises:
        ValueError: If it can't be called like that; so do KeyError and TypeError.
    """
    return _CALLS[name](*arguments)
