"""dlib's face ResNet: its own serialization, read strictly, and the network.

The network is that of dlib's examples/dnn_face_recognition_ex.cpp (davisking/dlib). The file
holds, in dlib's serialization (dlib/dnn/core.h, dlib/dnn/layers.h, dlib/serialize.h): the versions
of all layers from the loss inwards, then the layers themselves from the input outwards. Every
value but the weights is known beforehand, so any other value means that the file is another one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import runtime
from engine.backbones import Malformed

INPUT_PX = 150
DIMENSIONS = 128
MEAN_RGB = (122.782, 117.001, 104.298)  # dlib/dnn/input.h, input_rgb_image_sized
SCALE = 1 / 256

_RATES = (None,) * 4  # multipliers of learning rate and weight decay, for training

# (channels, whether it halves the picture), from the input to the output.
BLOCKS: tuple[tuple[int, bool], ...] = (
    *[(32, False)] * 3,
    (64, True),
    *[(64, False)] * 3,
    (128, True),
    *[(128, False)] * 2,
    (256, True),
    *[(256, False)] * 2,
    (256, True),
)


Stage = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
"""A convolution with the affine layer after it folded in: (out, in, height, width), bias (out,)."""


def read_weights(data: bytes | bytearray) -> tuple[list[Stage], NDArray[np.float32]]:
    """The weights in a serialized ``anet_type``.

    The 7 x 7 convolution and two stages per residual block, from the input to the output; then the
    fully connected layer without bias, float32 (256, 128). Raises Malformed if anything in it
    differs from that network, is not finite, or is left over.
    """
    reader = _Reader(data)
    reader.integers(1)
    reader.text("loss_metric_2")
    reader.reals(None, None)  # margin and distance threshold, for training
    reader.integers(*_layer_versions(), 3)
    reader.text("input_rgb_image_sized")
    reader.reals(*MEAN_RGB)
    reader.integers(INPUT_PX, INPUT_PX)
    stages = [reader.stage(32, 3, 7, stride=2, padding=0)]
    reader.plain_layer("relu_")
    reader.plain_layer("max_pool_2", 3, 3, 2, 2, 0, 0)
    channels = 32
    for width, halves in BLOCKS:
        stride, padding = (2, 0) if halves else (1, 1)
        stages.append(reader.stage(width, channels, 3, stride=stride, padding=padding))
        reader.plain_layer("relu_")
        stages.append(reader.stage(width, width, 3, stride=1, padding=1))
        if halves:
            reader.plain_layer("avg_pool_2", 2, 2, 2, 2, 0, 0)
        reader.plain_layer("add_prev_")
        reader.plain_layer("relu_")
        channels = width
    reader.plain_layer("avg_pool_2", 0, 0, 1, 1, 0, 0)
    output = reader.fully_connected(channels, DIMENSIONS)
    reader.expect(reader.at, len(data))
    return stages, output


def graph(data: bytes | bytearray) -> Any:
    """The network, for :func:`engine.runtime.compile_network`.

    It takes uint8 (N, 150, 150, 3) RGB and gives float32 (N, 128), not normalised, as dlib's.
    Raises what :func:`read_weights` does.
    """
    ((weights, bias), *stages), output = read_weights(data)
    ops = runtime.operators()
    pixels, x = runtime.pictures(INPUT_PX, MEAN_RGB)
    x = runtime.convolution(x, SCALE * weights, bias, stride=2)
    x = runtime.max_pool(ops.relu(x), 3)
    for (_, halves), first, second in zip(BLOCKS, stages[::2], stages[1::2], strict=True):
        x = _block(ops, x, first, second, halves=halves)
    x = runtime.flat(runtime.channel_means(x))
    return runtime.graph(pixels, ops.matmul(x, ops.constant(output), False, False))


def _block(ops: Any, x: runtime.Node, first: Stage, second: Stage, *, halves: bool) -> runtime.Node:
    """A residual block.

    The smaller operand of the sum is padded with zeros at the end of rows, columns and channels.
    """
    stride, pads = (2, (0, 0, 0, 0)) if halves else (1, (1, 1, 1, 1))
    main = runtime.convolution(x, *first, stride=stride, pads=pads)
    main = runtime.convolution(ops.relu(main), *second, pads=(1, 1, 1, 1))
    if halves:
        x = ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], exclude_pad=True)
        sizes = [node.get_output_partial_shape(0)[1:].to_shape() for node in (main, x)]
        missing = np.max(sizes, axis=0) - sizes
        main, x = (
            ops.pad(node, [0, 0, 0, 0], [0, *ends], "constant") if any(ends) else node
            for node, ends in zip((main, x), missing.tolist(), strict=True)
        )
    return ops.relu(ops.add(main, x))


def _layer_versions() -> Iterator[int]:
    """Versions of the layers from the loss inwards: 2, and 1 for tags and skips."""
    yield from (2, 2)  # fully connected, average pool
    for _, halves in reversed(BLOCKS):
        yield from (2, 2)  # relu, sum
        if halves:
            yield from (2, 1, 1)  # average pool, skip, tag
        yield from (2, 2, 2, 2, 2, 1)  # affine, convolution, relu, affine, convolution, tag
    yield from (2, 2, 2)  # max pool, relu, affine; the first convolution has version 3


class _Reader:
    """Reads dlib's serialization front to back; every method raises Malformed."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = memoryview(data)
        self.at = 0

    def integers(self, *expected: int) -> None:
        """Packed integers of known values."""
        for value in expected:
            self.expect(self._integer(), value)

    def reals(self, *expected: float | None) -> None:
        """Floating-point numbers, each a mantissa and an exponent of 2; None: any value."""
        for value in expected:
            mantissa, exponent = self._integer(), self._integer()
            if value is not None:
                self.expect(abs(exponent) < 64 and round(mantissa * 2.0**exponent, 5), value)

    def text(self, expected: str) -> None:
        self.integers(len(expected))
        self.expect(bytes(self._take(len(expected))), expected.encode("ascii"))

    def plain_layer(self, kind: str, *geometry: int) -> None:
        self.text(kind)
        self.integers(*geometry)
        self._layer_end()

    def stage(self, width: int, channels: int, edge: int, *, stride: int, padding: int) -> Stage:
        """A convolution and its affine layer."""
        self.text("con_4")
        filters = width * channels * edge * edge
        values = self._tensor(filters + width, 1, 1, 1)
        self.integers(width, edge, edge, stride, stride, padding, padding)
        self.integers(1, width, channels, edge, edge, 1, 1, width, 1, 1)
        self.reals(*_RATES)
        self._layer_end()
        if channels == 3:  # the layer at the input
            self.integers(1)  # samples made from one input
        self.text("affine_")
        affine = self._tensor(2 * width, 1, 1, 1)
        self.integers(1, 1, width, 1, 1, 1, 1, width, 1, 1, 0)
        self._layer_end()
        gamma, beta = affine[:width].astype(np.float64), affine[width:]
        weights = values[:filters].reshape(width, channels, edge, edge)
        return weights * gamma.reshape(-1, 1, 1, 1), values[filters:] * gamma + beta

    def fully_connected(self, inputs: int, outputs: int) -> NDArray[np.float32]:
        self.text("fc_2")
        self.integers(outputs, inputs)
        values = self._tensor(inputs, outputs, 1, 1)
        self.integers(1, inputs, outputs, 1, 1, 1, 0, 0, 0, 0, 1)
        self.reals(*_RATES)
        self._layer_end()
        return values.reshape(inputs, outputs)

    def expect(self, found: object, expected: object) -> None:
        """What was found is what is known beforehand."""
        if found != expected:
            raise Malformed(f"it is no dlib face network (byte {self.at})")

    def _layer_end(self) -> None:
        """What every layer ends with: three flags and three empty tensors."""
        for flag in self._take(3):
            if flag not in b"01":
                raise Malformed(f"it holds no flag at byte {self.at}")
        self.integers(*(2, 0, 0, 0, 0) * 3)

    def _tensor(self, *shape: int) -> NDArray[np.float32]:
        self.integers(2, *shape)
        values = np.frombuffer(self._take(4 * int(np.prod(shape))), "<f4")
        if not np.isfinite(values).all():
            raise Malformed("it holds values that are not finite")
        return values

    def _integer(self) -> int:
        (control,) = self._take(1)
        magnitude = int.from_bytes(self._take(control & 0x0F), "little")
        return -magnitude if control & 0x80 else magnitude

    def _take(self, count: int) -> memoryview:
        if self.at + count > len(self._data):
            raise Malformed("it ends too early")
        piece = self._data[self.at : self.at + count]
        self.at += count
        return piece
