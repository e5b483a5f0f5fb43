"""Compiles a network and runs it: the only place that knows OpenVINO."""

from __future__ import annotations

import io
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.errors import SetupProblem, WeightsCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Precision = Literal["auto", "f32", "bf16"]

_core_lock = threading.Lock()
_core_once: list[Any] = []


class Network:
    """A compiled network; safe to call from several threads at once.

    Made by :func:`compile_network`.

    Attributes:
        name: For messages.
        precision: What the arithmetic is done in, ``"f32"`` or ``"bf16"``.
    """

    def __init__(self, compiled: Any, *, name: str, precision: str, parallel: int) -> None:
        self.name = name
        self.precision = precision
        self._compiled = compiled
        self._input_dtype = np.dtype(compiled.input(0).get_element_type().to_dtype())
        self._input_shape = tuple(
            None if side.is_dynamic else int(side.get_length())
            for side in compiled.input(0).get_partial_shape()
        )
        self._outputs = len(compiled.outputs)
        self._idle: list[Any] = []  # last in, first out: the warmest request works next
        self._turn = threading.BoundedSemaphore(parallel)

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """The network's outputs for a batch.

        Args:
            batch: Any number of inputs along axis 0, in the shape that the graph declares; cast
                to the graph's input type where that loses nothing (uint8 to float32).

        Returns:
            One array per output of the graph, in its order; the caller owns them.

        Raises:
            ValueError: If the batch has another shape than the graph's input, or a type that
                can't be cast.
            SetupProblem: If the runtime fails.
        """
        batch = self._checked(batch)
        with self._turn:
            request = self._take()
            try:
                request.infer([batch], share_inputs=True)
                return tuple(
                    np.array(request.get_output_tensor(i).data, np.float32)
                    for i in range(self._outputs)
                )
            except RuntimeError as exc:
                raise SetupProblem(f"the network {self.name} can't be run: {_first(exc)}") from exc
            finally:
                self._idle.append(request)

    def _take(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._compiled.create_infer_request()

    def _checked(self, batch: NDArray[Any]) -> NDArray[Any]:
        fits = batch.ndim == len(self._input_shape) and all(
            want in (None, have) for want, have in zip(self._input_shape, batch.shape, strict=True)
        )
        if not fits or 0 in batch.shape:
            message = f"the network {self.name} takes {self._input_shape}, not {batch.shape}"
            raise ValueError(message)
        if not np.can_cast(batch.dtype, self._input_dtype, casting="same_kind"):
            message = f"the network {self.name} takes {self._input_dtype}, not {batch.dtype}"
            raise ValueError(message)
        return np.ascontiguousarray(batch, self._input_dtype)


def compile_network(
    model: bytes | Path,
    *,
    name: str,
    precision: Precision = "auto",
    threads: int | None = None,
    cache_folder: Path | None = None,
) -> Network:
    """A network ready to run.

    Args:
        model: An ONNX file, or its bytes. The first dimension of its one input may be dynamic.
        name: For messages and the cache.
        precision: ``"auto"`` is bf16 where the processor computes in it, else f32.
        threads: Cores that work on one batch. None: all of them, the least time for a single
            batch. 1: as many batches at once as there are cores, the most batches per second
            when several threads call :meth:`Network.run`.
        cache_folder: Where a compiled ONNX file is kept for the next start (a 94 MB ResNet-50
            is then ready in 0.05 s instead of 0.3 s). Not used for bytes: compiling them afresh
            was measured to be as fast. A folder that can't be written, or a damaged entry, is
            no error: the network is then compiled afresh.

    Raises:
        WeightsCorrupt: If the model can't be read or compiled.
        SetupProblem: If OpenVINO can't be loaded on this machine.
    """
    core = _core()
    chosen = _chosen(core, precision)
    per_batch = min(threads or cores(), cores())
    parallel = max(1, cores() // per_batch)
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": chosen,
        "INFERENCE_NUM_THREADS": per_batch * parallel,
        "NUM_STREAMS": parallel,
        "ENABLE_CPU_PINNING": False,  # several networks share the cores
    }
    try:
        if isinstance(model, bytes):
            compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", config)
        else:
            if cache_folder is not None and _writable(cache_folder):
                config["CACHE_DIR"] = str(cache_folder)
            compiled = core.compile_model(str(model), "CPU", config)
    except RuntimeError as exc:
        raise WeightsCorrupt(f"the network {name} can't be built: {_first(exc)}") from exc
    return Network(compiled, name=name, precision=chosen, parallel=parallel)


def cores() -> int:
    """Processor cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _core() -> Any:
    with _core_lock:
        if not _core_once:
            try:
                with _without_telemetry():
                    import openvino
            except (ImportError, OSError) as exc:
                message = f"OpenVINO can't be loaded, reinstall the package openvino: {exc}"
                raise SetupProblem(message) from exc
            # The first conversion of a type takes a lock of C++ and imports from Python under it:
            # two threads that do so at once wait for each other, one for that lock, one for the
            # interpreter's. Once it is done, no thread waits.
            openvino.Type.f32.to_dtype()
            openvino.Tensor(np.zeros(1, np.float32))
            _core_once.append(openvino.Core())
        return _core_once[0]


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Imports inside skip OpenVINO's model converter.

    ``openvino/__init__.py`` imports ``openvino.tools.ovc`` for ``convert_model`` and tolerates its
    absence. That module reports the import to a server over the network and takes a third of the
    import time; nothing here converts models.
    """
    converter = "openvino.tools.ovc"
    hidden = converter not in sys.modules
    if hidden:
        sys.modules[converter] = None  # type: ignore[assignment] # documented: import fails
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(converter, None)


def _chosen(core: Any, precision: Precision) -> str:
    if precision != "auto":
        return precision
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _first(exc: RuntimeError) -> str:
    """The last line of OpenVINO's message, which names the cause; the others name its sources."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
