"""Writes a network as an ONNX graph, straight from its weights."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GRAPH_FILE", "TENSOR_FILE", "GraphWriter", "Malformed"]

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
