"""Labelled photos: a unit vector of each file, pairs of files, labels of the people, line-ups.

A line-up (``ProbeSet``) is a gallery and the probes that are searched in it: one cosine of a probe
to each person, as a search finds it; of several backbones together the fused value of their
ensemble. They are made block by block, so that thousands of people take no more memory than their
vectors.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import PhotoProblem, SetupProblem
from engine.types import Box, Face, Photo, Space
from gallery.likeness import Floats, Floats32, Ints
from gallery.progress import Progress, in_batches, no_progress
from gallery.records import FoundPerson, FoundPortrait, folded
from gallery.scores.ensemble import Ensemble
from gallery.scores.fit import cosine_blocks, person_norms
from gallery.scores.trial import draw_probes, learn_ensemble
from gallery.sources.folder import PEOPLE_FILE, described, read_photo, read_table, scan

KINDS: Final = ("category", "country", "gender")
_CHUNK: Final = 16  # photos that share a batch
_LONGEST: Final = 60  # characters of a label; longer ones are cut
_TIE: Final = 1e-6  # as much as two sums of the same numbers in float32 may differ
_YES_NO: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class PhotoEmbeddings(NamedTuple):
    """One backbone's vectors of photos; kept in memory only."""

    space: Space
    vectors: Mapping[Path, Floats32]  # (D,) of the face in each file with one
    failures: Mapping[Path, str]  # of the others: ``"no face"`` or a sentence about the file
    boxes: Mapping[Path, Box]  # where that face is, in pixels of the decoded photo
    seconds: float  # that decoding, detecting and embedding for this space alone would have taken
    detection_s: float = 0.0  # decoding and detecting alone

    def failures_below(self, root: Path) -> dict[str, str]:
        """Why photos have no vector, by path below a folder."""
        return {
            str(file.relative_to(root) if file.is_relative_to(root) else file): why
            for file, why in sorted(self.failures.items())
        }


def embed_photos(
    engine: Engine, names: Sequence[str], files: Iterable[Path], *, progress: Progress = no_progress
) -> dict[str, PhotoEmbeddings]:
    """Finds and embeds the face in every file, each file once, on all cores; by backbone.

    Raises SetupProblem if one of the backbones can't be used.
    """
    from engine.runtime import cores

    distinct = sorted(set(files))
    networks = {name: engine.backbone(name) for name in names}
    vectors: dict[str, dict[Path, Floats32]] = {name: {} for name in names}
    failures: dict[Path, str] = {}
    boxes: dict[Path, Box] = {}

    def embed(some: Sequence[Path]) -> Floats:
        """Seconds as this thread counts them: for detection, and for each backbone."""
        crops: dict[str, dict[Path, NDArray[np.uint8]]] = {name: {} for name in names}
        times = [time.perf_counter()]
        for file in some:
            try:
                photo = engine.decode(read_photo(file, engine.limits.max_bytes))
            except (PhotoProblem, OSError) as problem:
                why = getattr(problem, "strerror", None)
                failures[file] = f"the file can't be read: {why}" if why else str(problem)
                continue
            if not (faces := engine.detect(photo)):
                failures[file] = "no face"
                continue
            face = central_face(photo, faces)
            boxes[file] = face.box
            for name, network in networks.items():
                crops[name][file] = network.crop(photo, face)
        times.append(time.perf_counter())
        for name, own in crops.items():
            found = [one.vector for one in networks[name].embed(list(own.values()))]
            vectors[name].update(zip(own, found, strict=True))
            times.append(time.perf_counter())
        return np.diff(times)

    progress("photos", 0, len(distinct))
    started, seconds = time.perf_counter(), np.zeros(1 + len(networks))
    pool = ThreadPoolExecutor(cores())
    try:
        for done in as_completed([pool.submit(embed, one) for one in in_batches(distinct, _CHUNK)]):
            seconds += done.result()
            progress("photos", len(boxes) + len(failures), len(distinct))
    finally:
        pool.shutdown(cancel_futures=True)
    # Threads wait for each other, so the time by the clock is divided as their own times are.
    seconds *= (time.perf_counter() - started) / max(seconds.sum(), 1e-9)
    detection_s, *embedding_s = seconds.tolist()
    return {
        name: PhotoEmbeddings(
            network.space, vectors[name], failures, boxes, detection_s + own_s, detection_s
        )
        for (name, network), own_s in zip(networks.items(), embedding_s, strict=True)
    }


def central_face(photo: Photo, faces: Sequence[Face]) -> Face:
    """The face that a labelled photo is of: large and near the centre.

    The weight of a face is the edge of its box, less the farther its middle lies from the photo's:
    halved an eighth of the diagonal away. Labelled photos are cut around their subject; bystanders
    may be a little larger, but are at the edge.
    """

    def weight(face: Face) -> float:
        x, y = face.box.centre
        off = np.hypot(x - photo.width_px / 2, y - photo.height_px / 2)
        return float(face.box.area_px**0.5 / (1 + 8 * off / np.hypot(*photo.pixels.shape[:2])))

    return max(faces, key=weight)


def photos_by_person(folder: Path) -> dict[str, list[Path]]:
    """The photos of everybody in a folder arranged as for `lookalike gallery add`, by file name.

    Raises SetupProblem if there is no such folder, or no photo of anybody in it.
    """
    root = folder.resolve()
    people: dict[str, list[Path]] = {}
    for portrait in scan(folder).portraits:
        people.setdefault(portrait.person.name, []).append(root / portrait.origin)
    return {who: sorted(files, key=lambda file: file.name) for who, files in people.items()}


class LabelledPair(NamedTuple):
    """Two photos and whether they show one person."""

    a: Path
    b: Path
    same: bool


def read_pairs(file: Path, root: Path) -> tuple[LabelledPair, ...]:
    """The pairs of a CSV file with the columns a, b (paths below root) and same (1 or 0).

    Semicolons and tabs serve as well. Raises SetupProblem for missing files and odd lines.
    """
    pairs = []
    for number, cells in enumerate(read_table(file), start=2):
        line = f"line {number} of {file}"
        lacking = [name for name in ("a", "b", "same") if not cells.get(name)]
        if lacking:
            raise SetupProblem(
                f"{line} has no {lacking[0]}: it needs the columns a, b and same, named in its "
                "first line"
            )
        same = _YES_NO.get(cells["same"].lower())
        if same is None:
            raise SetupProblem(f"{line}: same is 1 or 0, not {cells['same']}")
        pairs.append(LabelledPair(root / cells["a"], root / cells["b"], same))
    if len({pair.same for pair in pairs}) < 2:
        raise SetupProblem(f"{file} needs pairs of one person and pairs of two: at least one each")
    missing = sorted({path for pair in pairs for path in (pair.a, pair.b) if not path.is_file()})
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SetupProblem(
            f"there is no photo {missing[0]}{more}: --root must be the folder that the paths in "
            f"{file} start from"
        )
    return tuple(pairs)


class PeopleLabels(NamedTuple):
    """What is known of the people in an evaluation."""

    labels: Mapping[str, Mapping[str, tuple[str, ...]]]  # by kind (``KINDS``), then by name
    sources: tuple[str, ...] = ()  # where labels came from, as phrases
    unmatched: tuple[str, ...] = ()  # names in people.csv that are nobody's in the folder


def read_labels(
    folder: Path, file: Path | None = None, gallery_people: Iterable[FoundPerson] = ()
) -> PeopleLabels:
    """What folders, a gallery and the file people.csv say of the people; the file counts most.

    The file is a CSV as people.csv in the folder (gallery/sources/folder.py), which is read where
    there is none. Of people of a gallery the first of a name counts. Raises SetupProblem if the
    folder or file can't be read, or the file has none of the columns.
    """
    contents = scan(folder)
    portraits: Sequence[FoundPortrait] = contents.portraits
    unmatched: Sequence[str] = contents.strangers
    if file is not None:
        portraits, unmatched = described(portraits, file)
    elif (folder / PEOPLE_FILE).is_file():
        file = folder / PEOPLE_FILE
    labels: dict[str, dict[str, tuple[str, ...]]] = {kind: {} for kind in KINDS}
    names = {folded(portrait.person.name): portrait.person.name for portrait in portraits}
    for portrait in portraits:
        _label(labels, portrait.person.name, portrait.person)
    told = False
    for person in gallery_people:
        name = names.pop(folded(person.name), "")
        told = bool(name and _label(labels, name, person)) or told
    sources = {
        "the folders": any(len(PurePosixPath(one.origin).parts) > 2 for one in portraits),
        "the gallery": told,
        f"the file {file.name if file else ''}": file is not None,
    }
    return PeopleLabels(
        labels, tuple(name for name, used in sources.items() if used), tuple(unmatched)
    )


def _label(labels: dict[str, dict[str, tuple[str, ...]]], name: str, person: FoundPerson) -> bool:
    """Adds labels to a person's, but for a second country or gender; whether there was any."""
    told = False
    said = (person.categories, (person.country,), (person.gender,))
    for kind, values in zip(KINDS, said, strict=True):
        known = labels[kind].get(name, ())
        given = [" ".join((value or "").split())[:_LONGEST] for value in values]
        if any(given) and (kind == "category" or not known):
            # Each once, whatever its case.
            both = {value.casefold(): value for value in (*given, *known) if value}
            labels[kind][name] = tuple(both.values())
            told = True
    return told


def spellings(labels: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Labels in lower case -> as most people's are spelled."""
    found: dict[str, Counter[str]] = {}
    for values in labels.values():
        for value in values:
            found.setdefault(value.casefold(), Counter())[value] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in found.items()}


class SpaceVectors(NamedTuple):
    """Gallery (N, D) by person and probes (M, D) as one backbone sees them: float32 unit vectors.

    The norms, float64 (K,), are for ``person_cosines``.
    """

    space: Space
    gallery: Floats32
    probes: Floats32
    norms: Floats


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ProbeSet:
    """People with gallery photos, and probes of them."""

    names: tuple[str, ...]  # everybody who was to take part, by number
    people: Ints  # (K,), numbers of those with a face in the gallery: the columns
    owners: Ints  # (N,), the column of each gallery photo, rising
    gallery_files: tuple[Path, ...]  # (N,)
    right: Ints  # (M,), the column of each probe's own person
    probe_files: tuple[Path, ...]  # (M,)
    failures: tuple[tuple[int, Path], ...]  # probes without a face, here or in the gallery
    vectors: tuple[SpaceVectors, ...]  # of one backbone, or of an ensemble's, in its order
    ensemble: Ensemble | None = None

    @property
    def first(self) -> SpaceVectors:
        """The vectors of the only backbone, or of the weightiest one, which compares photos."""
        return self.vectors[0]

    @property
    def described(self) -> str:
        """What likenesses come from."""
        if self.ensemble is None:
            return f"space {self.first.space.id}"
        parts = [f"{one.space.backbone} {one.weight:.0%}" for one in self.ensemble.members]
        return f"scores fused, {', '.join(parts)}".replace("%", " %")

    @property
    def unit(self) -> str:
        """What likenesses are: cosines, or means of scores from 0 to 100 moved to [-1, 1]."""
        return "cosine" if self.ensemble is None else "mean of scores, -1 to 1"

    def name(self, column: int) -> str:
        """Who a column is."""
        return self.names[int(self.people[column])]

    def likenesses(
        self, rows: NDArray[np.intp] | None = None, columns: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[NDArray[np.intp], Floats32]]:
        """Some probes with some people, in blocks: rows (m,), and values float32 (m, columns).

        None is all of them; columns are rising, at least one.
        """
        rows = np.arange(len(self.right)) if rows is None else rows
        spaces, index = self.vectors, self.owners
        if columns is not None:
            mine = np.isin(self.owners, columns)
            index = np.searchsorted(columns, self.owners[mine])
            spaces = tuple(
                one._replace(gallery=one.gallery[mine], norms=one.norms[columns]) for one in spaces
            )
        blocks = [cosine_blocks(one.probes[rows], one.gallery, index, one.norms) for one in spaces]
        for parts in zip(*blocks, strict=True):
            values = [cosines for _, cosines in parts]
            fused = values[0] if self.ensemble is None else self.ensemble.fused(values)
            yield rows[parts[0][0]], fused.astype(np.float32)

    def pairs(self, columns: Ints) -> Floats:
        """Likeness, float64 (M,), of each probe to the one person that ``columns`` (M,) says."""
        found = np.empty(len(self.right))
        order = np.argsort(columns, kind="stable")
        wanted, firsts = np.unique(columns[order], return_index=True)
        for column, rows in zip(wanted, np.split(order, firsts[1:]), strict=True):
            for block, values in self.likenesses(rows, np.array([column])):
                found[block] = values[:, 0]
        return found

    def closest(self, row: int, column: int) -> tuple[Path, float]:
        """The person's gallery photo that is most like a probe, and its cosine."""
        start, end = np.searchsorted(self.owners, [column, column + 1]).tolist()
        cosines = self.first.gallery[start:end] @ self.first.probes[row]
        best = int(np.argmax(cosines))
        return self.gallery_files[start + best], float(cosines[best])


class Identification(NamedTuple):
    """What came of searching every probe: likenesses to its own person and to the best other one.

    The rank (M,): how many others are at least as alike; a picture of two names identifies nobody.
    """

    own: Floats
    ranks: Ints
    best: Floats
    best_columns: Ints


def identify(
    probe_set: ProbeSet, on_block: Callable[[NDArray[np.intp], Floats32], object] = lambda *_: None
) -> Identification:
    """Searches every probe among everybody.

    ``on_block`` gets each block of probes and their likenesses to everybody, float32 (m, K), minus
    infinity at their own person.
    """
    blocks = []
    for rows, values in probe_set.likenesses():
        places = (np.arange(len(values)), probe_set.right[rows])
        own = values[places].astype(np.float64)
        values[places] = -np.inf
        ranks = (values >= own[:, None] - _TIE).sum(axis=1)
        best = values.max(axis=1).astype(np.float64)
        blocks.append((own, ranks, best, values.argmax(axis=1)))
        on_block(rows, values)
    return Identification(*(np.concatenate(part) for part in zip(*blocks, strict=True)))


def split_photos(
    seen: PhotoEmbeddings, people: Mapping[str, Sequence[Path]], gallery_photos: int
) -> ProbeSet:
    """The first photos of each person are the gallery, the rest, at least one, are probes.

    Raises SetupProblem if fewer than two people have a face in the gallery, or no probe has one.
    """
    gallery: list[tuple[int, Path]] = []
    probes: list[tuple[int, Path]] = []
    for who, files in enumerate(people.values()):
        gallery += [(who, file) for file in files[:gallery_photos] if file in seen.vectors]
        probes += [(who, file) for file in files[gallery_photos:]]
    known, owners = np.unique([who for who, _ in gallery], return_inverse=True)
    there = set(known.tolist())
    found = [(who, file) for who, file in probes if file in seen.vectors and who in there]
    if len(known) < 2 or not found:
        raise SetupProblem("there are not enough faces in the photos to look anybody up")
    kept = set(found)
    vectors = np.stack([seen.vectors[file] for _, file in gallery])
    starts = np.searchsorted(owners, np.arange(len(known)))
    norms = person_norms(vectors, starts, seen.space.backbone)
    sought = np.stack([seen.vectors[file] for _, file in found])
    return ProbeSet(
        names=tuple(people),
        people=known.astype(np.int64),
        owners=owners.astype(np.int64),
        gallery_files=tuple(file for _, file in gallery),
        right=np.searchsorted(known, [who for who, _ in found]).astype(np.int64),
        probe_files=tuple(file for _, file in found),
        failures=tuple(probe for probe in probes if probe not in kept),
        vectors=(SpaceVectors(seen.space, vectors, sought, norms),),
    )


def fuse(probe_sets: Sequence[ProbeSet]) -> ProbeSet | None:
    """The ensemble of several backbones, learned from the gallery photos, never from the probes.

    None where one backbone alone is as good, or there are too few people to learn from.
    """
    by_space = {one.first.space: one.first for one in probe_sets}
    galleries = {space: one.gallery for space, one in by_space.items()}
    ensemble = learn_ensemble(draw_probes(galleries, probe_sets[0].owners))
    if ensemble is None:
        return None
    vectors = tuple(by_space[space] for space in ensemble.spaces)
    return replace(probe_sets[0], vectors=vectors, ensemble=ensemble)
