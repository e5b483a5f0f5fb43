"""Who may be most alike, in a gallery so large that a byte a dimension for everybody is too much.

Product quantization: in half a byte for two of the principal components, all of a gallery fits
into tens of megabytes, and faiss looks at all of it in a millisecond or two (André et al., "Cache
locality is not enough: high-performance nearest neighbor search with product quantization fast
scan", VLDB 2015). Graphs and inverted lists were slower and missed more of the nearest strangers,
who are all about equally far: benchmarks/candidate_indexes.py. This narrows a million down to a few
thousand; who of them is most alike is then decided exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import faiss

__all__ = ["Candidates", "CandidatesMaker"]


class CandidatesMaker:
    """Collects vectors.

    Args:
        sample: float32 (n, M), what the vectors are like; M even, n at least a few hundred.
    """

    def __init__(self, sample: NDArray[np.float32]) -> None:
        import faiss

        # It is little work, and where cores are busy threads wait for each other a hundred times.
        faiss.omp_set_num_threads(1)
        size = sample.shape[1]
        recipe = f"PQ{size // 2}x4fs"
        self._index: Any = faiss.index_factory(size, recipe, faiss.METRIC_INNER_PRODUCT)
        self._index.train(np.ascontiguousarray(sample))

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Takes in float32 (n, M)."""
        if len(vectors):
            self._index.add(np.ascontiguousarray(vectors))

    def made(self) -> NDArray[np.uint8]:
        """What ``Candidates`` reads: uint8 (bytes,)."""
        import faiss

        made: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return made


class Candidates:
    """Finds, of many vectors, those with about the greatest products with a query.

    Args:
        made: By ``CandidatesMaker``.
    """

    def __init__(self, made: NDArray[np.uint8]) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._index: faiss.Index = faiss.deserialize_index(made)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def nearest(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Places of about the nearest, in any order: int64, at most ``count``."""
        count = min(count, len(self))
        if count == 0:
            return np.empty(0, np.int64)
        places: NDArray[np.int64] = self._index.search(query[None], count)[1][0]
        return places[places >= 0]
