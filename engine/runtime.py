"""Builds, compiles, keeps and runs networks: the only place that knows OpenVINO.

A compiled network is kept in one file of the cache folder, ``NAME-PRECISION-KEY.network``: what
OpenVINO exports, then its CRC-32. A later start maps the file. The key covers everything that the
content depends on; a file that is damaged is written anew, and any may be deleted at any time.
"""

import hashlib
import logging
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import SetupProblem, WeightsCorrupt

Precision = Literal["auto", "float", "f32", "bf16", "int8"]
Node = Any  # an operator of OpenVINO, which is not typed

_CONVERTER = "openvino.tools.ovc"

_log = logging.getLogger(__name__)
_core_lock = threading.Lock()
_core_once: list[Any] = []


class Network:
    """A compiled network, made by :func:`compile_network`; safe to call from several threads."""

    def __init__(
        self, compiled: Any, *, name: str, precision: str, parallel: int, mapped: object = None
    ) -> None:
        self.name = name
        self.precision = precision  # what the arithmetic is done in: "f32", "bf16" or "int8"
        import openvino

        self._compiled, self._tensor = compiled, openvino.Tensor
        self._input_dtype = np.dtype(compiled.input(0).get_element_type().to_dtype())
        sides = compiled.input(0).get_partial_shape()
        self._input_shape = tuple(None if s.is_dynamic else int(s.get_length()) for s in sides)
        self._idle: list[Any] = []  # last in, first out: the warmest request works next
        self._parallel, self._turn = parallel, threading.BoundedSemaphore(parallel)
        self._mapped = mapped  # OpenVINO uses the weights where they lie and does not hold them

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """The network's outputs for a batch, in the graph's order; the caller owns them.

        The batch is any number of inputs along axis 0, in the shape that the graph declares, cast
        to the graph's input type where that loses nothing (uint8 to float32). Raises ValueError if
        it has another shape, or a type that can't be cast, and SetupProblem if the runtime fails.
        """
        fits = batch.ndim == len(self._input_shape) and all(
            want in (None, have) for want, have in zip(self._input_shape, batch.shape, strict=True)
        )
        if not fits or 0 in batch.shape:
            message = f"the network {self.name} takes {self._input_shape}, not {batch.shape}"
            raise ValueError(message)
        if not np.can_cast(batch.dtype, self._input_dtype, casting="same_kind"):
            message = f"the network {self.name} takes {self._input_dtype}, not {batch.dtype}"
            raise ValueError(message)
        # OpenVINO refuses what is read-only.
        batch = np.require(batch, self._input_dtype, ["C", "W"])
        with self._requests(len(batch)) as requests:
            pieces = np.array_split(batch, len(requests)) if len(requests) > 1 else [batch]
            try:
                for request, piece in zip(requests, pieces, strict=True):
                    request.set_input_tensor(self._tensor(piece, shared_memory=True))
                for request in requests[1:]:
                    request.start_async()
                found = [tuple(requests[0].infer(share_outputs=True).values())]
                for request in requests[1:]:
                    request.wait()
                    found.append(tuple(output.data for output in request.output_tensors))
            except RuntimeError as exc:
                raise SetupProblem(f"the network {self.name} can't be run: {_first(exc)}") from exc
            return tuple(np.concatenate(parts, dtype="f4") for parts in zip(*found, strict=True))

    @contextmanager
    def _requests(self, most: int) -> Iterator[list[Any]]:
        """As many requests as cores are idle, at least one, so that under load a batch has one."""
        self._turn.acquire()
        count = 1
        while count < min(most, self._parallel) and self._turn.acquire(blocking=False):
            count += 1
        requests: list[Any] = []
        try:
            while len(requests) < count:
                try:
                    requests.append(self._idle.pop())
                except IndexError:
                    requests.append(self._compiled.create_infer_request())
            yield requests
            self._idle += requests  # but for those that failed: others of them may still be at work
        finally:
            self._turn.release(count)


def compile_network(
    build: Callable[[], Any],
    *,
    name: str,
    precision: Precision = "auto",
    threads: int | None = None,
    parallel: int | None = None,
    cache_folder: Path | None = None,
    key: str = "",
    samples: Callable[[], NDArray[Any]] | None = None,
) -> Network:
    """A network ready to run.

    Args:
        build: Gives the network, made by :func:`graph`; not called if a compiled one is kept.
        name: For messages, and the file in the cache.
        precision: ``"float"`` is bf16 where the processor computes in it, else f32; ``"auto"``
            is int8 instead of f32 where there are samples.
        threads: Cores that work on one request. None: all of them, the least time for a single
            input. 1: a batch is shared among the cores that are idle, or has one core while
            several threads call :meth:`Network.run`, which takes the least processor time.
        parallel: Requests at once; None: as many as there are cores for. A lone one of one thread
            runs in the thread that calls, without another that would wait for it spinning.
        cache_folder: Where the compiled network is kept for the next start (a 94 MB ResNet-50 is
            then ready in 0.07 s instead of 0.5 s); None: nowhere. That it can't be written, or
            that the file is damaged, is no error.
        key: Changes with everything that ``build`` and ``samples`` depend on.
        samples: Gives a batch from which int8, which needs it, learns how large values become.

    Raises WeightsCorrupt if the network can't be built, and SetupProblem if OpenVINO can't be
    loaded.
    """
    core = _core()
    capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" in capable:
        known = "bf16"
    else:
        known = "int8" if precision == "auto" and samples is not None else "f32"
    chosen = known if precision in ("auto", "float") else precision
    per_batch = min(threads or cores(), cores())
    parallel = parallel or max(1, cores() // per_batch)
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32" if chosen == "int8" else chosen,
        "INFERENCE_NUM_THREADS": per_batch * parallel,
        "NUM_STREAMS": parallel,
        "ENABLE_CPU_PINNING": False,  # several networks share the cores
    }
    path = compiled = mapped = None
    if cache_folder is not None:
        import openvino

        device = core.get_property("CPU", "FULL_DEVICE_NAME"), capable
        digest = hashlib.sha256(repr((key, openvino.__version__, device)).encode()).hexdigest()
        path = cache_folder / f"{name}-{chosen}-{digest[:16]}.network"
        mapped = _mapped(path)
        if mapped is not None:
            with suppress(RuntimeError):  # what OpenVINO can't use is compiled anew
                tensor = openvino.Tensor(mapped, shared_memory=True)
                compiled = core.import_model(tensor, "CPU", config)
    if compiled is None:
        mapped = None
        try:
            model = build()
            if chosen == "int8":
                assert samples is not None
                _quantise(model, samples(), core)
            compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as exc:
            raise WeightsCorrupt(f"the network {name} can't be built: {_first(exc)}") from exc
        if path is not None:
            _keep(compiled, path)
    return Network(compiled, name=name, precision=chosen, parallel=parallel, mapped=mapped)


def _quantise(model: Any, samples: NDArray[Any], core: Any) -> None:
    """Lets a network's convolutions multiply bytes; sums and shortcuts stay in f32.

    What they are applied to is rounded in the range that the samples have, kernels by output
    channel. Those of the first, which sees the picture, use half the range: before VNNI a processor
    adds two products in 16 bits, and where these overflow dlib's vectors turn by a cosine of 0.02,
    without by 0.0001.
    """
    import openvino

    ops = operators()
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    sources = list(dict.fromkeys(node.input_value(0) for node in found))
    seen = openvino.Model([ops.result(one) for one in sources], model.get_parameters())
    values = core.compile_model(seen, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([samples])
    rounded = {}
    for number, source in enumerate(sources):
        low, high = values[number].min(), values[number].max()
        low = min(low, 0) and -max(-low, high)
        rounded[source] = ops.fake_quantize(source, low, high, low, high, 256).output(0)
    for node in found:
        kernel = node.input_value(1)
        most = np.abs(kernel.get_node().get_data()).max(axis=(1, 2, 3), keepdims=True)
        most = np.maximum(most * (2 if node is found[0] else 1), np.float32(1e-12))
        node.input(0).replace_source_output(rounded[node.input_value(0)])
        whole = ops.fake_quantize(kernel, -most, most, -most, most, 255)
        node.input(1).replace_source_output(whole.output(0))


def _mapped(path: Path) -> NDArray[np.uint8] | None:
    """The kept network in a file, mapped; None if there is none or it is not whole."""
    try:
        content = np.memmap(path, np.uint8, "c")  # OpenVINO refuses an array that is read-only
    except (OSError, ValueError):
        return None
    # Against accidents: 94 MB in 25 ms.
    checksum = zlib.crc32(content[:-4].data).to_bytes(4, "little")
    return content[:-4] if content[-4:].tobytes() == checksum else None


def _keep(compiled: Any, path: Path) -> None:
    """Writes the file at once or not at all, and deletes those of other weights or older code."""
    content = compiled.export_model().getbuffer()
    family = path.name.rpartition("-")[0]
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.write(zlib.crc32(content).to_bytes(4, "little"))
        temporary.replace(path)
        for other in path.parent.glob(f"{family}-*"):
            if other != path:
                other.unlink(missing_ok=True)
    except FileNotFoundError:
        return  # another process wrote the same network, and deleted the unfinished one
    except OSError as exc:
        _log.warning("the cache %s can't be written: %s", path.parent, exc.strerror)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def operators() -> Any:
    """OpenVINO's operators, of which networks are made: the module ``openvino.opset13``."""
    _core()
    import openvino.opset13 as opset

    return opset


def pictures(edge_px: int, mean: Sequence[float] | None = None) -> tuple[Node, Node]:
    """The input of a network, uint8 (N, edge_px, edge_px, 3), RGB; -1 px: any size.

    The second node is its values as float32 (N, 3, edge_px, edge_px), minus each channel's mean.
    """
    ops = operators()
    pixels = ops.parameter([-1, edge_px, edge_px, 3], np.uint8, "pixels")
    planes = ops.transpose(ops.convert(pixels, "f32"), [0, 3, 1, 2])
    if mean is not None:
        planes = ops.subtract(planes, np.array(mean, np.float32).reshape(1, 3, 1, 1))
    return pixels, planes


def convolution(
    x: Node,
    weights: NDArray[Any],
    bias: NDArray[Any],
    *,
    stride: int = 1,
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Node:
    """A convolution of (N, in, h, w) by weights (out, in, height, width) and bias (out,).

    ``pads``: rows and columns of zeros before and after, (top, left, bottom, right).
    """
    ops = operators()
    # Given as an array, OpenVINO would make a list of it first.
    kernel = ops.constant(np.ascontiguousarray(weights, np.float32))
    x = ops.convolution(x, kernel, [stride] * 2, pads[:2], pads[2:], [1, 1])
    return ops.add(x, np.asarray(bias, np.float32).reshape(1, -1, 1, 1))


def max_pool(x: Node, size: int, *, ceiling: bool = False) -> Node:
    """The largest of each window, at a stride of 2; ``ceiling``: a last, incomplete one counts."""
    rounding, zeros = "ceil" if ceiling else "floor", [0, 0]
    ops = operators()
    return ops.max_pool(x, [2, 2], [1, 1], zeros, zeros, [size, size], rounding).output(0)


def channel_means(x: Node) -> Node:
    """The mean of each channel: (N, C, h, w) to (N, C, 1, 1)."""
    return operators().reduce_mean(x, [2, 3], keep_dims=True)


def flat(x: Node) -> Node:
    """All values of a picture in a row: (N, ...) to (N, D)."""
    return operators().reshape(x, [0, -1], special_zero=True)


def graph(pixels: Node, *outputs: Node) -> Any:
    """The network from an input to outputs; what :func:`compile_network` compiles."""
    import openvino

    return openvino.Model(list(outputs), [pixels])


def cores() -> int:
    """Processor cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _core() -> Any:
    with _core_lock:
        if not _core_once:
            # ``openvino/__init__.py`` imports its model converter and tolerates its absence. That
            # module reports the import to a server over the network and takes a third of the time.
            sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type] # import fails
            try:
                import openvino
            except (ImportError, OSError) as exc:
                message = f"OpenVINO can't be loaded, reinstall the package openvino: {exc}"
                raise SetupProblem(message) from exc
            finally:
                if sys.modules[_CONVERTER] is None:
                    del sys.modules[_CONVERTER]
            # The first conversion of a type takes a lock of C++ and imports from Python under it:
            # two threads that do so at once wait for each other, one for that lock, one for the
            # interpreter's. Once it is done, no thread waits.
            openvino.Type.f32.to_dtype()
            openvino.Tensor(np.zeros(1, np.float32))
            _core_once.append(openvino.Core())
        return _core_once[0]


def _first(exc: RuntimeError) -> str:
    """The last line of OpenVINO's message, which names the cause; the others name its sources."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
