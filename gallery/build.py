"""Makes a gallery whole: a vector for every photo, scores, the search's cache; removes people.

One process at a time (``Gallery.writing``). All of it may be stopped at any moment, by Ctrl-C or
by a kill: running the command again goes on.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.backbones.network import Backbone
from engine.decode import decode
from engine.engine import Engine
from engine.errors import GalleryCorrupt, PhotoProblem
from engine.types import Face, Space
from gallery.changes import Transaction
from gallery.gallery import Gallery
from gallery.progress import Progress, Report, in_batches, no_progress
from gallery.records import Person, Portrait
from gallery.scores import Learned, read_learned
from gallery.scores.ensemble import BEST
from gallery.scores.trial import try_ensemble

_BATCH: Final = 64
_LEARN_AFTER: Final = 0.1  # part of the vectors that must be new before scores are learned again
_LEARN_BYTES: Final = 80_000_000
_LEARN_ROWS: Final = 20_000


def build(
    gallery: Gallery,
    engine: Engine,
    backbone: str,
    *,
    mend: bool = True,
    progress: Progress = no_progress,
) -> Report:
    """Makes the gallery whole for one backbone.

    With ``mend`` portraits whose record or photo is damaged go, and are reported. Those that lack a
    vector get one from their thumbnail; vectors of older versions of the backbone, dead rows and
    files that nothing refers to go; scores, and whether several backbones are better together, are
    learned anew if enough has changed. A second run does nothing. Raises Busy if another process is
    changing the gallery, SetupProblem if it or the backbone is unusable.
    """
    report = Report()
    space = engine.backbone(backbone).space
    with gallery.working(report):
        report.swept += gallery.sweep_vectors()
        gallery.drop_damaged(space)
        if mend and (lost := gallery.damaged()):
            with gallery.transaction() as changes:
                _drop(gallery, changes, lost, report)
        complete(gallery, engine, [backbone], report, progress)
        for state in gallery.space_states():
            if state.space.backbone == backbone and state.space != space:
                with gallery.transaction() as changes:
                    changes.remove_space(state.space)
        if gallery.compact(space):
            gallery.refresh()
            gallery.settle(space, progress)
        report.swept += gallery.sweep_vectors()
        try_ensemble(gallery)
        gallery.refresh()
    return report


def remove(gallery: Gallery, person: Person, *, never_again: bool = False) -> int:
    """Removes a person, their portraits and thumbnails; with ``never_again`` bans them, too.

    They are not found from now on; their vectors leave the file at the next ``build``. How many
    portraits they had. Raises Busy if another process is changing the gallery.
    """
    with gallery.writing():
        with gallery.transaction() as changes:
            if never_again:
                changes.ban(person.key, person.name, person.wikidata_id)
            portraits = changes.remove_person(person.id)
        gallery.refresh()
    return portraits


def complete(
    gallery: Gallery,
    engine: Engine,
    backbones: Sequence[str],
    report: Report,
    progress: Progress = no_progress,
) -> None:
    """Embeds what lacks a vector, prepares the search, learns scores; within ``writing``.

    Where all have vectors it takes one transaction, and one more to try several backbones.
    """
    spaces = {name: engine.backbone(name).space for name in backbones}
    while True:
        with gallery.transaction() as changes:
            lacking = [name for name, space in spaces.items() if len(gallery.unembedded(space))]
            if not lacking:
                gallery.refresh()
                for space in spaces.values():
                    gallery.settle(space, progress)
                    _learn(gallery, changes, space)
                # There may be something to find out about several backbones, or to forget.
                several = len(gallery.spaces()) > 1 or gallery.finding(BEST) is not None
                break
        for name in lacking:
            embed_missing(gallery, engine, name, report, progress)
    if several:
        try_ensemble(gallery)


def embed_missing(
    gallery: Gallery, engine: Engine, model: str, report: Report, progress: Progress = no_progress
) -> None:
    """Makes the vectors that portraits lack in a backbone's space, from their thumbnails.

    A portrait whose thumbnail can't be read is removed and reported; one without a photo is left.
    """
    network = engine.backbone(model)
    missing = gallery.unembedded(network.space).tolist()
    with ThreadPoolExecutor() as pool:
        for batch in in_batches(missing, _BATCH, model, progress):
            with gallery.reading():
                portraits, photos = gallery.portraits_by_id(batch), gallery.photos(batch)
            pairs = [(network, portraits[one], photos[one]) for one in batch]
            crops = pool.map(_crop, *zip(*pairs, strict=True))
            whole = {one: crop for one, crop in zip(batch, crops, strict=True) if crop is not None}
            lost = [one for one in batch if one not in whole]
            vectors = network.embed(list(whole.values())) if whole else []
            with gallery.transaction() as changes:
                if whole:
                    rows = np.stack([one.vector for one in vectors])
                    changes.add_vectors(network.space, rows, list(whole))
                _drop(gallery, changes, lost, report)
            report.embedded[model] += len(whole)


def _drop(gallery: Gallery, changes: Transaction, lost: Sequence[int], report: Report) -> None:
    """Takes portraits away that can't be read, so that their source can bring them again."""
    owners = gallery.person_ids(lost)
    names = {one.id: one.name for one in gallery.people_by_id(set(owners.values())).values()}
    changes.remove_portraits(lost)
    report.dropped += [names[owners[one]] for one in lost]


def _crop(network: Backbone, portrait: Portrait, jpeg: bytes) -> NDArray[np.uint8] | None:
    """What the network embeds of a thumbnail; None if that can't be read."""
    try:
        photo = decode(jpeg)  # the settings limit what others send
        size_px = portrait.width_px, portrait.height_px
        if not portrait.sound or (photo.width_px, photo.height_px) != size_px:
            return None
        return network.crop(photo, Face(portrait.box, portrait.landmarks, confidence=1.0))
    except PhotoProblem:
        return None


def learn_scores(gallery: Gallery, space: Space) -> None:
    """Fits a space's calibration, if enough has changed since it was fitted last."""
    with gallery.transaction() as changes:
        gallery.refresh()
        _learn(gallery, changes, space)


def _learn(gallery: Gallery, changes: Transaction, space: Space) -> None:
    rows = gallery.vector_count(space)
    try:
        learned = read_learned(gallery, space)
    except GalleryCorrupt:
        learned = None
    before = learned.rows if learned else float("-inf")
    if rows == 0 or abs(rows - before) <= _LEARN_AFTER * rows:
        return
    from gallery.scores.fit import fit_calibration

    limit = min(_LEARN_ROWS, _LEARN_BYTES // (4 * space.dimensions))
    calibration = fit_calibration(space, *gallery.index(space).training_rows(limit))
    changes.keep_calibration(space, Learned(rows, calibration).content())
