"""The derived cache of a space: whose row is where, int8 codes of people, and of their portraits.

A file ``cache-GGGGGG-R-N.arrays`` beside the vectors of generation G, made of their first N rows
when the gallery had revision R: arrays, then as JSON the type, shape and place of each by its name,
then in 8 bytes how long that is. It may be deleted at any time: a search then reads the vectors,
and `gallery build` makes it anew. Rows that were added or died since are known from the table
``portrait_vector``; their people are compared without the cache.

- Codes: one byte a dimension of a vector x without what all vectors have in common (the centre c).
  With y = q - c, z = x - c and their codes y', z': ``q . x = y . z + c . x + y . c``, and
  ``y . z`` is about ``y' . z'``.
- Everybody has codes of their direction. Nearly the same picture as a person's is found by codes of
  the portraits along some principal components: what is left of a face and a portrait outside of
  them can add no more than the product of the two lengths.
- faiss stands in for both where there are very many: product quantization, half a byte for two of
  the principal components, so that a million people fit into tens of megabytes and are looked at in
  a millisecond or two (André et al., "Cache
  locality is not enough: high-performance nearest neighbor search with product quantization fast
  scan", VLDB 2015). Graphs and inverted lists were slower and missed more of the nearest strangers,
  who are all about equally far: benchmarks/candidate_indexes.py.
"""

import contextlib
import json
import math
import mmap
import os
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from gallery.likeness import SHORTEST_SUM, evened_norms
from gallery.progress import Progress, no_progress
from gallery.search import Floats, Ids, Mask, Vectors
from gallery.vector_file import VectorFile

SCANNED_BYTES: Final = 40_000_000
"""So many codes of people and portraits are scanned whole; of more, faiss names candidates.
benchmarks/gallery_scale.py."""

_NAME = re.compile(r"cache-(\d{6})-(\d+)-(\d+)\.arrays")
_ALIGNED: Final = 64  # bytes: where arrays begin
_DAMAGED: Final = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError)
_THREADS: Final = min(4, os.cpu_count() or 1)  # more wait for the same memory
# Several threads gain little below, and lose much where the cores are busy: they wait for the last.
_ONE_THREAD_BYTES: Final = 64_000_000
_SMALLEST: Final = np.float32(1e-30)
_DEVIATIONS: Final = 5.0  # errors of single dimensions add up like noise; so far they never go
_SAMPLE: Final = 8_192  # vectors from which the centre and the components are learned
_COMPONENTS: Final = 256
_OVERSAMPLED: Final = 32
_PORTRAIT_COMPONENTS: Final = 128  # nearly the same picture is told by fewer
_BLOCK_ROWS: Final = 1_024
# Candidates, so that of the best 3 at least 0.99 are among them: benchmarks/gallery_scale.py.
_FEWEST: Final = 2_048
_SHARE: Final = 1 / 200  # of everybody, if that is more
_PER_WANTED: Final = 64
_SPARE: Final = 1.25
_FEW: Final = 8_192  # people, all of whose codes are read as fast as candidates are found
_NEAREST_PORTRAITS: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class PersonRows:
    """Whose rows of a space's file count: by person, then by portrait.

    Attributes:
        row_count: Of how many rows of the file.
        numbers: int64 (N,), the rows.
        portrait_ids: int64 (N,), in the same order.
        person_ids: int64 (P,), rising.
        starts: int64 (P + 1,): the rows of person p are ``numbers[starts[p] : starts[p + 1]]``.
        sum_norms: float64 (P,), length of the sum of each person's vectors.
    """

    row_count: int
    numbers: Ids
    portrait_ids: Ids
    person_ids: Ids
    starts: Ids
    sum_norms: Floats

    def __len__(self) -> int:
        return len(self.person_ids)

    @classmethod
    def of(cls, file: VectorFile, row_count: int, found: Ids, before: Self | None = None) -> Self:
        """Puts in order what counts: int64 (N, 3), person, portrait and row.

        Sums of people who were the same before are taken over.
        """
        order = np.lexsort((found[:, 1], found[:, 0]))
        persons, portraits, numbers = np.ascontiguousarray(found[order].T)
        firsts = np.flatnonzero(np.diff(persons, prepend=-1))
        starts, sum_norms = np.append(firsts, len(numbers)), np.zeros(len(firsts))
        made = cls(row_count, numbers, portraits, persons[firsts], starts, sum_norms)
        late = np.arange(len(made))
        if before is not None:
            places = made.places_in(before)
            known, late = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
            sum_norms[known] = before.sum_norms[places[known]]
        for some in made.blocks(late):
            sums = _sums(made.vectors(file, some), made.counts(some))
            sum_norms[some] = np.linalg.norm(sums, axis=1)
        return made

    def counts(self, people: NDArray[np.integer]) -> Ids:
        """How many rows people have."""
        counts: Ids = self.starts[people + 1] - self.starts[people]
        return counts

    def places_in(self, other: Self) -> Ids:
        """Where in earlier rows of the same file people are, unchanged: int64 (P,), else -1.

        A row never counts again once it is dead: whoever has as many as before, none of them new,
        has the same.
        """
        if len(other) == 0 or len(self) == 0:
            return np.full(len(self), -1, np.int64)
        places = np.searchsorted(other.person_ids, self.person_ids)
        places = np.minimum(places, len(other) - 1)
        same = other.person_ids[places] == self.person_ids
        same &= other.counts(places) == np.diff(self.starts)
        same &= np.maximum.reduceat(self.numbers, self.starts[:-1]) < other.row_count
        return np.where(same, places, -1)

    def places(self, people: NDArray[np.integer]) -> Ids:
        """Where the rows of people are, one person behind the other."""
        counts = self.counts(people)
        before = np.cumsum(counts) - counts
        return np.repeat(self.starts[people] - before, counts) + np.arange(counts.sum())

    def vectors(self, file: VectorFile, people: NDArray[np.integer]) -> Vectors:
        """The vectors of people, one person behind the other: float32 (n, D)."""
        return file.rows(self.numbers[self.places(people)])

    def blocks(self, people: NDArray[np.integer]) -> list[NDArray[Any]]:
        """People in groups of about 1,024 rows."""
        ends = np.cumsum(self.counts(people))
        groups = np.split(people, np.flatnonzero(np.diff(ends // _BLOCK_ROWS)) + 1)
        return [group for group in groups if len(group)]


def _sums(vectors: Vectors, counts: Ids) -> Floats:
    """What the vectors of each person add up to: float64 (len(counts), D)."""
    sums, starts = np.zeros((len(counts), vectors.shape[1])), np.cumsum(counts) - counts
    for nth in range(counts.max(initial=0)):  # half of the time of np.add.reduceat
        has = counts > nth
        sums[has] += vectors[starts[has] + nth]
    return sums


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

    centre: Vectors
    codes: NDArray[np.int8]
    scales: Vectors
    offsets: Vectors
    error: float

    def products(self, vector: Vectors, places: NDArray[np.integer] | None = None) -> Vectors:
        """Products of a face with the vectors, or with those at some places: float32 (n,)."""
        import simsimd  # only large galleries need it

        less = vector - self.centre
        code, scale, _ = quantized(less[None])
        at: Any = slice(None) if places is None else places
        codes = self.codes[at]
        if len(codes) == 0:
            return np.empty(0, np.float32)
        threads = _THREADS if codes.size > _ONE_THREAD_BYTES else 1
        found = simsimd.cdist(code, codes, metric="dot", out_dtype="float32", threads=threads)
        products: Vectors = np.asarray(found)[0]
        products *= self.scales[at] * scale[0]
        products += self.offsets[at]
        products += np.float32(less @ self.centre)
        return products


def quantized(vectors: Vectors) -> tuple[NDArray[np.int8], Vectors, float]:
    """Vectors, float32 (n, D), in one byte a dimension.

    Returns:
        Codes, int8 (n, D); scales, float32 (n,), that times the codes are about the vectors; and
        about the most that a product of two such vectors, of length 1 at most, is off.
    """
    scales = np.maximum(np.abs(vectors).max(axis=1) / 127, _SMALLEST).astype(np.float32)
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    # A number is off by scale / sqrt(12) in the mean; twice, for both vectors have codes.
    usual = float(np.median(scales)) if len(scales) else 0.0
    error = _DEVIATIONS * usual / 12**0.5 * 2**0.5
    return codes, scales, error


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """What a search reads first.

    Attributes:
        revision: Of the gallery, when it was made.
        rows: As of then.
        codes: Of each person's direction.
        components: float32 (M, D), principal components of the vectors.
        owners: int32 (S,), whose the portraits of people who have several are, as places.
        portraits: These: codes along the components, or a faiss index.
        rests: float32 (S,), their lengths outside of the components; None with faiss.
        people: A faiss index of each person's direction; None where few enough are scanned.
    """

    revision: int
    rows: PersonRows
    codes: Codes
    components: Vectors
    owners: NDArray[np.int32]
    portraits: Any
    rests: Vectors | None = None
    people: Any = None

    @classmethod
    def read(cls, path: Path, dimensions: int) -> Self:
        """Maps the arrays; raises one of ``_DAMAGED`` if any is missing or is wrong."""
        _, revision, row_count = _made_of(path)
        arrays = _mapped(path)
        rows = PersonRows(row_count, *(arrays[one.name] for one in fields(PersonRows)[1:]))
        codes, components = _codes(arrays), arrays["components"]
        if (
            codes.codes.shape != (len(rows), dimensions)
            or not rows.numbers.shape == rows.portrait_ids.shape == (int(rows.starts[-1]),)
            or not rows.person_ids.shape == rows.sum_norms.shape == (len(rows.starts) - 1,)
        ):
            raise ValueError("of another space, or damaged")
        owners = arrays["owners"]
        if "people" not in arrays:
            sketches, rests = _codes(arrays, "portrait_"), arrays["rests"]
            if sketches.codes.shape != (len(owners), len(components)):
                raise ValueError("damaged")
            return cls(revision, rows, codes, components, owners, sketches, rests)
        import faiss

        faiss.omp_set_num_threads(1)
        people, portraits = map(faiss.deserialize_index, (arrays["people"], arrays["portraits"]))
        return cls(revision, rows, codes, components, owners, portraits, people=people)

    def candidates(self, vector: Vectors, k: int, wanted: Mask | None) -> Ids:
        """Places of people to whom the likeness may be greatest, for k of them.

        ``wanted``, bool (len(rows),), says who may be found; None for everybody.
        """
        seen = np.einsum("md,d->m", self.components, vector)
        query = np.append(seen, [self.codes.centre @ vector, 0]).astype(np.float32)
        count = max(_FEWEST, int(_SHARE * len(self.rows)), _PER_WANTED * k)
        if wanted is None:
            return _nearest(self.people, query, count)
        few = int(np.count_nonzero(wanted))
        if few > _FEW:
            asked = int(count * len(wanted) / few * _SPARE)
            places = _nearest(self.people, query, asked)
            places = places[wanted[places]]
            if len(places) >= count:
                return places
        return np.flatnonzero(wanted)  # few, or not where the others are

    def same_picture(self, vector: Vectors, least: float) -> NDArray[np.int32]:
        """Places of who may have nearly the same picture, each once.

        That is whoever has several portraits, one of which may have a cosine of ``least`` or more;
        with faiss the owners of the nearest ones.
        """
        less = vector - self.codes.centre
        seen = np.einsum("md,d->m", self.components, less)
        if self.rests is None:
            query = np.ascontiguousarray(seen[:_PORTRAIT_COMPONENTS])
            found = _nearest(self.portraits, query, _NEAREST_PORTRAITS)
        else:
            bounds = self.portraits.products(seen)
            bounds += self.rests * _rests(less[None], seen[None])[0]
            least -= less @ self.codes.centre + self.portraits.error
            found = np.flatnonzero(bounds >= np.float32(least))
        return np.unique(self.owners[found])


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """What ``_write`` wrote into a file."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    described = json.loads(content[-8 - int.from_bytes(content[-8:], "little") : -8])
    return {
        name: np.frombuffer(content, kind, math.prod(shape), at).reshape(shape)
        for name, (kind, shape, at) in described.items()
    }


def _codes(arrays: dict[str, NDArray[Any]], prefix: str = "") -> Codes:
    """As ``_write`` keeps them."""
    centre, codes, scales, offsets, error = (
        arrays[prefix + one] for one in ("centre", "codes", "scales", "offsets", "error")
    )
    return Codes(centre, codes, scales, offsets, float(error))


def _rests(vectors: Vectors, seen: NDArray[np.floating]) -> Vectors:
    """Lengths of what the components don't see of vectors, (n,); for rounding a little more."""
    squares = np.einsum("nd,nd->n", vectors, vectors) - np.einsum("nm,nm->n", seen, seen)
    rests: Vectors = np.sqrt(np.maximum(squares, 0) + np.float32(1e-5))
    return rests


def _nearest(index: Any, query: Vectors, count: int) -> Ids:
    """Places of about the greatest products with a query, in any order: at most ``count``."""
    count = min(count, int(index.ntotal))
    if count == 0:
        return np.empty(0, np.int64)
    places: Ids = index.search(query[None], count)[1][0]
    return places[places >= 0]


def newest_cache(file: VectorFile, row_count: int, revision: int) -> Cache | None:
    """The cache of a file's rows, if there is one that they begin with.

    It can be made anew, so one that makes no sense counts as none.
    """
    found = [(_made_of(path), path) for path in file.folder.glob("cache-*")]
    for (generation, made, rows), path in sorted(found, reverse=True):
        if generation == file.generation and made <= revision and rows <= row_count:
            with contextlib.suppress(*_DAMAGED):
                return Cache.read(path, file.space.dimensions)
    return None


def _made_of(path: Path) -> tuple[int, int, int]:
    """Generation, revision and number of rows of a cache; of an unfinished one too many rows."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, sys.maxsize)


def remove_caches(folder: Path, *, but: Path | None = None, beyond: int = -1) -> None:
    """Removes the caches of a space's folder, but for one, and for those of so few rows."""
    for path in folder.glob("cache-*"):
        if path != but and _made_of(path)[2] > beyond:
            with contextlib.suppress(OSError):
                path.unlink()


def write_cache(
    file: VectorFile, rows: PersonRows, revision: int, progress: Progress = no_progress
) -> None:
    """Makes the cache of at least one person, in place of earlier ones."""
    from threadpoolctl import threadpool_limits

    path = file.folder / f"cache-{file.generation:06d}-{revision}-{rows.row_count}.arrays"
    part = path.with_name(f"{path.name}.part")
    try:
        # Where a bot keeps the cores busy, several threads took ten times as long as one: they
        # wait for each other at every step.
        with threadpool_limits(1, "blas"), part.open("wb") as content:
            _write(content, file, rows, progress)
            content.flush()
            os.fsync(content.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    remove_caches(file.folder, but=path)


def _write(into: BinaryIO, file: VectorFile, rows: PersonRows, progress: Progress) -> None:
    dimensions, total = file.space.dimensions, len(rows.numbers)
    chosen = np.linspace(0, total - 1, min(_SAMPLE, total)).astype(np.int64)
    sample = file.rows(np.sort(rows.numbers[chosen]))
    centre = sample.mean(axis=0)
    sample -= centre
    arrays = {one.name: getattr(rows, one.name) for one in fields(PersonRows)[1:]}
    arrays |= {"centre": centre, "error": quantized(sample[:: len(sample) // 1_024 + 1])[2]}
    size, sketched = len(rows), min(_COMPONENTS, -(-dimensions // 2))
    scanned = size * dimensions + total * sketched <= SCANNED_BYTES
    portraits = _Portraits(file, rows, centre, sample, sketched if scanned else 0)
    del sample  # tens of megabytes
    arrays["scales"], arrays["offsets"] = scales, offsets = np.empty((2, size), np.float32)
    for some in rows.blocks(np.arange(size)):
        at = slice(some[0], some[-1] + 1)
        directions = portraits.take(some, rows.vectors(file, some))
        codes, scales[at], _ = quantized(directions - centre)
        into.write(codes.data)
        offsets[at] = directions @ centre
        progress("search", int(rows.starts[at.stop]), total)
    described: dict[str, Any] = {"codes": ("|i1", (size, dimensions), 0)}
    for name, content in (arrays | portraits.arrays()).items():
        array = np.asarray(content)
        into.write(bytes(-into.tell() % _ALIGNED))
        described[name] = array.dtype.str, array.shape, into.tell()
        into.write(np.ascontiguousarray(array).data)
    for name, index in portraits.indexes.items():
        import faiss

        start = into.tell()
        writer = faiss.PyCallbackIOWriter(into.write)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)  # without a copy in memory
        described[name] = "|u1", (into.tell() - start,), start
    end = json.dumps(described).encode()
    into.write(end + len(end).to_bytes(8, "little"))


class _Portraits:
    """Makes the arrays for portraits, and people's for faiss; takes in some people at a time."""

    def __init__(
        self, file: VectorFile, rows: PersonRows, centre: Vectors, sample: Vectors, sketched: int
    ) -> None:
        self._rows, self._centre, self._sketched = rows, centre, sketched
        self._components = _principal(sample, sketched or _COMPONENTS)
        self._owners: list[NDArray[np.int32]] = []
        self._sketches: list[tuple[NDArray[Any], ...]] = []
        self.indexes: dict[str, Any] = {}  # of faiss, where not all is scanned
        seen = sample @ self._components.T
        self._error = quantized(seen)[2]
        if not sketched:
            evened = evened_norms(rows.sum_norms, np.diff(rows.starts), file.space.backbone)
            self._factors = rows.sum_norms / np.maximum(evened, SHORTEST_SUM)
            likely = self._factors[np.linspace(0, len(rows) - 1, len(seen)).astype(int)]
            self.indexes["people"] = _trained(_entries(seen, likely))
            self.indexes["portraits"] = _trained(seen[:, :_PORTRAIT_COMPONENTS])

    def take(self, people: Ids, vectors: Vectors) -> Vectors:
        """Takes in people with all their vectors; their directions: float32 (len(people), D)."""
        counts, norms = self._rows.counts(people), self._rows.sum_norms[people][:, None]
        means = _sums(vectors, counts) / np.maximum(norms, SHORTEST_SUM)
        # Vectors that cancel each other out have no direction: the first stands for all.
        firsts = vectors[np.cumsum(counts) - counts]
        directions = np.where(norms < SHORTEST_SUM, firsts, means).astype(np.float32)
        several = np.repeat(counts > 1, counts)
        self._owners.append(np.repeat(people.astype(np.int32), counts)[several])
        less = vectors[several]
        offsets = less @ self._centre
        less -= self._centre
        seen: Any = less @ self._components.T
        if self._sketched:
            self._sketches.append((*quantized(seen)[:2], offsets, _rests(less, seen)))
            return directions
        if len(seen):
            self.indexes["portraits"].add(np.ascontiguousarray(seen[:, :_PORTRAIT_COMPONENTS]))
        seen = (directions - self._centre) @ self._components.T
        self.indexes["people"].add(_entries(seen, self._factors[people]))
        return directions

    def arrays(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "components": self._components,
            "owners": np.concatenate(self._owners),
        }
        if self._sketched:
            names = ("portrait_codes", "portrait_scales", "portrait_offsets", "rests")
            parts = map(np.concatenate, zip(*self._sketches, strict=True))
            none = np.zeros(len(self._components), np.float32)
            made |= {"portrait_centre": none, "portrait_error": self._error}
            return made | dict(zip(names, parts, strict=True))
        return made


def _principal(sample: Vectors, count: int) -> Vectors:
    """Directions in which vectors differ most, the most first: float32 (count at most, D).

    By subspace iteration, which is a third of the work of all directions: Halko, Martinsson, Tropp,
    "Finding structure with randomness", SIAM Review 53 (2011), algorithm 4.4.
    """
    size = sample.shape[1], count + _OVERSAMPLED
    basis = np.random.default_rng(0).standard_normal(size, np.float32)
    for _ in range(3):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    seen = sample @ basis
    turned = np.linalg.eigh(seen.T @ seen)[1][:, : -count - 1 : -1]
    return np.ascontiguousarray((basis @ turned).T)


def _entries(seen: NDArray[np.floating], factors: Floats) -> Vectors:
    """What the query of ``Cache.candidates`` is multiplied with: about a likeness."""
    one = np.broadcast_to(np.array([1, 0], np.float32), (len(seen), 2))
    return np.asarray(np.hstack([seen, one]) * factors[:, None], np.float32)


def _trained(sample: Vectors) -> Any:
    """An empty faiss index for vectors like these: (n, M), M even, n at least a few hundred."""
    import faiss

    # It is little work, and where cores are busy threads wait for each other a hundred times.
    faiss.omp_set_num_threads(1)
    size = sample.shape[1]
    index: Any = faiss.index_factory(size, f"PQ{size // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.niter = 10  # 25 find none of the nearest more
    index.train(np.ascontiguousarray(sample))
    return index
