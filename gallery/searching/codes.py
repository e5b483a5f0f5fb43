"""Vectors in one byte a dimension, and how far their products may be off.

With x a vector, x' what its codes say and |x - x'| <= e known for every row, and the same for the
face q with |q - q'| <= d (Cauchy-Schwarz)::

    q . x  <=  q' . x'  +  d |x|  +  |q| e  +  d e
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROUNDING", "code_products", "quantized"]

# What a float32 product of unit vectors may be off, summed over up to 4096 dimensions in lanes of
# at least eight: (4096 / 8 + 8) roundings of 2^-24 at worst; measured: 2e-6.
ROUNDING: Final = np.float32(3.2e-5)

_THREADS: Final = min(4, os.cpu_count() or 1)  # more wait for the same memory
# Several threads gain little below, and lose much where the cores are busy: they wait for the last.
_ONE_THREAD_BYTES: Final = 64_000_000
_SMALLEST: Final = np.float32(1e-30)


def quantized(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Vectors in one byte a dimension.

    Args:
        vectors: float32 (n, D).

    Returns:
        Codes, int8 (n, D); scales, float32 (n,); and how far scale times codes is from each
        vector, float32 (n,), rounded up.
    """
    scales = np.maximum(np.abs(vectors).max(axis=1) / 127, _SMALLEST).astype(np.float32)
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    errors = np.linalg.norm(vectors - codes * scales[:, None], axis=1)
    return codes, scales, (errors * 1.0001 + 1e-7).astype(np.float32)


def code_products(query: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """Products of one row of codes with many: float32 (n,).

    Args:
        query: int8 (1, D).
        codes: int8 (n, D), rows one behind another.
    """
    import simsimd  # only large galleries need it

    if len(codes) == 0:
        return np.empty(0, np.float32)
    threads = _THREADS if codes.size > _ONE_THREAD_BYTES else 1
    products = simsimd.cdist(query, codes, metric="dot", out_dtype="float32", threads=threads)
    found: NDArray[np.float32] = np.asarray(products)[0]
    return found
