"""Who may be most alike, by little memory: int8 codes that are scanned, faiss for very many.

Both are approximate; who of the candidates is most alike is decided exactly (gallery/search).

- Codes: one byte a dimension of a vector x without what all vectors have in common (the centre c).
  With y = q - c, z = x - c and their codes y', z': ``q . x = y . z + c . x + y . c``, and
  ``y . z`` is about ``y' . z'``.
- faiss: product quantization, half a byte for two of the principal components, so that a million
  people fit into tens of megabytes and are looked at in a millisecond or two (André et al., "Cache
  locality is not enough: high-performance nearest neighbor search with product quantization fast
  scan", VLDB 2015). Graphs and inverted lists were slower and missed more of the nearest strangers,
  who are all about equally far: benchmarks/candidate_indexes.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_THREADS: Final = min(4, os.cpu_count() or 1)  # more wait for the same memory
# Several threads gain little below, and lose much where the cores are busy: they wait for the last.
_ONE_THREAD_BYTES: Final = 64_000_000
_SMALLEST: Final = np.float32(1e-30)
_DEVIATIONS: Final = 5.0  # errors of single dimensions add up like noise; so far they never go


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Vectors in one byte a dimension.

    Attributes:
        centre: float32 (D,), about the mean of the vectors.
        codes: int8 (N, D), of each vector less the centre.
        scales: float32 (N,), of the codes.
        offsets: float32 (N,), centre times vector.
        error: About the most that a product of codes is off, for a face of the usual kind.
    """

    centre: NDArray[np.float32]
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32]
    error: float

    def products(
        self, vector: NDArray[np.float32], places: NDArray[np.integer] | None = None
    ) -> NDArray[np.float32]:
        """Products of a face with the vectors, or with those at some places: float32 (n,).

        Args:
            vector: float32 (D,), unit length.
            places: int (n,); None for all.
        """
        import simsimd  # only large galleries need it

        less = vector - self.centre
        code, scale, _ = quantized(less[None])
        at: Any = slice(None) if places is None else places
        codes = self.codes[at]
        if len(codes) == 0:
            return np.empty(0, np.float32)
        threads = _THREADS if codes.size > _ONE_THREAD_BYTES else 1
        found = simsimd.cdist(code, codes, metric="dot", out_dtype="float32", threads=threads)
        products: NDArray[np.float32] = np.asarray(found)[0]
        products *= self.scales[at] * scale[0]
        products += self.offsets[at]
        products += np.float32(less @ self.centre)
        return products


def quantized(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32], float]:
    """Vectors in one byte a dimension.

    Args:
        vectors: float32 (n, D), n >= 1.

    Returns:
        Codes, int8 (n, D); scales, float32 (n,), that times the codes are about the vectors; and
        about the most that a product of two such vectors, of length 1 at most, is off.
    """
    scales = np.maximum(np.abs(vectors).max(axis=1) / 127, _SMALLEST).astype(np.float32)
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    # A number is off by scale / sqrt(12) in the mean; twice, for both vectors have codes.
    error = _DEVIATIONS * float(np.median(scales)) / 12**0.5 * 2**0.5
    return codes, scales, error


def principal_components(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Directions in which vectors differ most: float32 (size, D), orthonormal, the most first.

    Args:
        vectors: float32 (n, D), less their mean.
        size: At most D.
    """
    components = np.linalg.eigh(vectors.T @ vectors)[1]
    return np.ascontiguousarray(components[:, : -size - 1 : -1].T, dtype=np.float32)


def trained(sample: NDArray[np.float32]) -> Any:
    """An empty faiss index for vectors like these.

    Args:
        sample: float32 (n, M), M even, n at least a few hundred.
    """
    import faiss

    # It is little work, and where cores are busy threads wait for each other a hundred times.
    faiss.omp_set_num_threads(1)
    size = sample.shape[1]
    index = faiss.index_factory(size, f"PQ{size // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(sample))
    return index


def nearest(index: Any, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of about the greatest products with a query, in any order: at most ``count``."""
    count = min(count, int(index.ntotal))
    if count == 0:
        return np.empty(0, np.int64)
    places: NDArray[np.int64] = index.search(query[None], count)[1][0]
    return places[places >= 0]
