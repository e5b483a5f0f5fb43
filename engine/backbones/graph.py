"""Networks as ONNX graphs: written straight from their weights, and kept for the next start.

The cache has one folder per weight file and graph-writing code: the graph, its tensors and what
OpenVINO compiled from them, with a list of their sizes and checksums. A file that is not listed or
differs from the list is never used: the folder is then written anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from engine.errors import SetupProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH_FILE = "graph.onnx"
TENSOR_FILE = "tensors.bin"

_OPSET = 17
_IR_VERSION = 8  # the one that belongs to opset 17; readers refuse versions newer than theirs
_ALIGNMENT = 64  # OpenVINO maps the file and uses the tensors where they lie
_INLINE_VALUES = 16  # shapes, pads and the like stay in the graph


class Malformed(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """A weight file that is not what it should be; the message says in what way."""


class GraphWriter:
    """An ONNX graph from uint8 pictures to vectors, written node by node.

    Tensors go to a file beside the graph as they come, so that memory holds one at a time; OpenVINO
    maps that file. Use it as a context manager and call :meth:`finish` last.

    Args:
        folder: Where ``GRAPH_FILE`` and ``TENSOR_FILE`` are written; it exists and holds neither.
        name: The graph's name.
        input_px: Edge of the square input; the graph takes uint8 (N, input_px, input_px, 3) RGB.
        dimensions: Length of an output row; the graph gives float32 (N, dimensions).
    """

    def __init__(self, folder: Path, *, name: str, input_px: int, dimensions: int) -> None:
        self._folder = folder
        self._name = name
        self._input_px = input_px
        self._dimensions = dimensions
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []
        self._file: BinaryIO = (folder / TENSOR_FILE).open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def pictures(self, *, mean: tuple[float, float, float]) -> str:
        """The input as float32 (N, 3, S, S), RGB, minus the mean of each channel."""
        floats = self.node("Cast", "pictures", to=1)  # 1: TensorProto.FLOAT
        planes = self.node("Transpose", floats, perm=[0, 3, 1, 2])
        return self.node("Sub", planes, self.tensor(np.array(mean).reshape(1, 3, 1, 1)))

    def tensor(self, values: NDArray[Any]) -> str:
        """A constant: integers as int64, everything else as float32; its name."""
        from onnx import TensorProto, helper  # only to write a graph

        name = f"t{len(self._tensors)}"
        if np.issubdtype(values.dtype, np.integer):
            proto = helper.make_tensor(name, TensorProto.INT64, values.shape, values.ravel())
        elif values.size <= _INLINE_VALUES:
            proto = helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.ravel())
        else:
            proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
            proto.data_location = TensorProto.EXTERNAL
            offset, length = self._append(values)
            for key, value in (("location", TENSOR_FILE), ("offset", offset), ("length", length)):
                entry = proto.external_data.add()
                entry.key, entry.value = key, str(value)
        self._tensors.append(proto)
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One operator with one output; the output's name."""
        from onnx import helper  # only to write a graph

        output = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def convolution(
        self,
        x: str,
        weights: NDArray[Any],
        bias: NDArray[Any],
        *,
        stride: int = 1,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> str:
        """A convolution.

        Args:
            x: Its input.
            weights: (out, in, height, width).
            bias: (out,).
            stride: Both ways.
            pads: Zeros before and after: top, left, bottom, right.
        """
        return self.node(
            "Conv",
            x,
            self.tensor(weights),
            self.tensor(bias),
            kernel_shape=weights.shape[2:],
            strides=[stride, stride],
            pads=list(pads),
        )

    def finish(self, output: str) -> Path:
        """Writes the graph whose result is ``output``, (N, dimensions) or (N, dimensions, 1, 1).

        Returns:
            Path of the ONNX file.
        """
        from onnx import TensorProto, helper, save_model  # only to write a graph

        flat = self.node("Flatten", output, axis=1)
        edge = self._input_px
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["N", edge, edge, 3])],
            [helper.make_tensor_value_info(flat, TensorProto.FLOAT, ["N", self._dimensions])],
            self._tensors,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
        self._file.close()
        path = self._folder / GRAPH_FILE
        save_model(model, path)
        return path

    def _append(self, values: NDArray[Any]) -> tuple[int, int]:
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        offset = self._file.tell()
        content = np.ascontiguousarray(values, "<f4")
        self._file.write(content.data)
        return offset, content.nbytes


LOCK_TIMEOUT_S = 20.0  # writing and compiling take 3 s

_LIST_FILE = "files.json"
_log = logging.getLogger(__name__)


@contextmanager
def kept_graph(
    cache_folder: Path, owner: str, key: str, write: Callable[[Path], Path]
) -> Iterator[tuple[Path, Path | None]]:
    """A graph that is whole, for as long as the ``with`` block runs.

    Only one process at a time works on a folder; one that waits longer than ``LOCK_TIMEOUT_S`` goes
    on without the cache. What the block adds to it (compiled networks) is
    listed when the block ends. Where the cache can't be written, the graph lies in a temporary
    folder that is gone afterwards.

    Args:
        cache_folder: Made if need be; may be deleted at any time.
        owner: The backbone; folders of its other keys are deleted when a new one is written.
        key: Tells graphs of one owner apart.
        write: Writes the graph into an empty folder.

    Yields:
        The graph's path, and the folder for compiled networks or None if nothing can be kept.

    Raises:
        SetupProblem: If neither the cache nor a temporary folder can be written.
    """
    folder = cache_folder / f"{owner}-{key}"
    with _locked(folder) as writable:
        if writable and _whole_or_written(folder, owner, write):
            yield folder / GRAPH_FILE, folder
            _list_files(folder)
            return
    with _temporary_folder() as temporary:
        yield write(temporary), None


@cache
def writing_code() -> str:
    """Changes whenever the code beside this file does: graphs written by older code are stale."""
    digest = hashlib.sha256()
    try:
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
    except OSError:  # no sources in this installation; its folder is new with every version
        digest.update(__file__.encode())
    return digest.hexdigest()[:8]


def _whole_or_written(folder: Path, owner: str, write: Callable[[Path], Path]) -> bool:
    """Whether the folder holds a whole graph, written now if need be; False if it can't be."""
    if _whole(folder):
        return True
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        _list_files(folder)
    except OSError as exc:
        _log.warning("the cache %s can't be written: %s", folder.parent, exc.strerror)
        shutil.rmtree(folder, ignore_errors=True)
        return False
    _forget_others(folder, owner)
    return True


def _whole(folder: Path) -> bool:
    """Whether everything listed is there unchanged; what is not listed is deleted."""
    try:
        listed: Any = json.loads((folder / _LIST_FILE).read_text(encoding="utf-8"))
        present = {path.name for path in folder.iterdir()} - {_LIST_FILE}
        for name in present - listed.keys():
            (folder / name).unlink()
        return GRAPH_FILE in listed and all(
            listed[name] == list(_fingerprint(folder / name)) for name in listed
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _list_files(folder: Path) -> None:
    """Writes the list anew if the files differ from it."""
    target = folder / _LIST_FILE
    try:
        files = {
            path.name: list(_fingerprint(path))
            for path in sorted(folder.iterdir())
            if not path.name.startswith(_LIST_FILE)
        }
        if target.exists() and json.loads(target.read_text(encoding="utf-8")) == files:
            return
        temporary = folder / f"{_LIST_FILE}.tmp"
        temporary.write_text(json.dumps(files, indent=1), encoding="utf-8")
        temporary.replace(target)
    except (OSError, ValueError) as exc:
        _log.warning("the cache %s can't be written: %s", folder.parent, exc)


def _fingerprint(path: Path) -> tuple[int, int]:
    """Size and CRC-32: against accidents, and 94 MB in 15 ms."""
    size = checksum = 0
    piece = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            size += count
            checksum = zlib.crc32(piece[:count], checksum)
    return size, checksum


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock; False if there can't be one, or not in ``LOCK_TIMEOUT_S``."""
    from filelock import FileLock, Timeout  # not needed to list backbones

    lock = FileLock(f"{folder}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        _log.warning(
            "another process has held %s.lock for %g s; this one compiles the network without the "
            "cache: look for a process that hangs, and stop it",
            folder,
            LOCK_TIMEOUT_S,
        )
        yield False
        return
    except (OSError, NotImplementedError) as exc:
        _log.warning("the cache %s can't be used: %s", folder.parent, exc)
        yield False
        return
    try:
        yield os.access(folder.parent, os.W_OK | os.X_OK)
    finally:
        lock.release()


def _forget_others(folder: Path, owner: str) -> None:
    """Deletes what other weights or older code left, unless another process uses it."""
    from filelock import FileLock, Timeout  # not needed to list backbones

    for other in folder.parent.glob(f"{owner}-*"):
        if other == folder or not other.is_dir():
            continue
        try:
            with FileLock(f"{other}.lock", timeout=0):
                shutil.rmtree(other, ignore_errors=True)
        except (OSError, Timeout):
            continue


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="lookalike-", ignore_cleanup_errors=True)
    except OSError as exc:
        raise SetupProblem(f"no temporary folder can be written: {exc.strerror}") from exc
    with folder as name:
        yield Path(name)
