"""Adds people, (re)builds vectors and scores, removes people. One process at a time.

All of it may be stopped at any moment, by Ctrl-C or by a kill: what a finished batch changed is
kept, what an unfinished one began does not count, and running the command again goes on.
"""

from __future__ import annotations

import time

from engine.engine import Engine
from engine.types import Space
from gallery import registrar, upkeep
from gallery.database import changing
from gallery.gallery import Gallery
from gallery.progress import Progress, Report, no_progress
from gallery.records import Person
from gallery.scores.trial import try_ensemble

__all__ = ["build", "complete", "remove"]


def build(
    gallery: Gallery, engine: Engine, backbone: str, *, progress: Progress = no_progress
) -> Report:
    """Makes the gallery whole for one backbone.

    Portraits that lack a vector get one from their thumbnail; vectors of older versions of the
    backbone, dead rows and files that nothing refers to go; scores, and whether several backbones
    are better together, are learned anew if enough has changed. Running it twice does nothing the
    second time.

    Raises:
        Busy: If another process is changing the gallery.
        SetupProblem: If the backbone or the gallery can't be used.
    """
    started = time.perf_counter()
    report = Report()
    space = engine.backbone(backbone).space
    with gallery.writing():
        try:
            upkeep.sweep_vectors(gallery, report)
            upkeep.sweep_portraits(gallery, report)
            upkeep.drop_damaged_space(gallery, space)
            complete(gallery, engine, backbone, space, report, progress)
            upkeep.drop_other_versions(gallery, space)
            upkeep.compact(gallery, space)
            upkeep.sweep_vectors(gallery, report)
            try_ensemble(gallery)
        except KeyboardInterrupt:
            report.interrupted = True
        gallery.refresh()
    report.seconds = time.perf_counter() - started
    return report


def remove(gallery: Gallery, person: Person) -> int:
    """Removes a person, their portraits and thumbnails.

    They are not found from now on; their vectors leave the files at the next ``build``.

    Returns:
        How many portraits they had.

    Raises:
        Busy: If another process is changing the gallery.
    """
    with gallery.writing():
        portraits = gallery.portraits(person.id)
        with changing(gallery.catalogue.database) as connection:
            upkeep.bury_portraits(gallery, connection, [portrait.id for portrait in portraits])
            registrar.delete_person(connection, person.id)
            registrar.note_change(connection)
        gallery.storage.discard_pictures([portrait.sha256 for portrait in portraits])
        gallery.refresh()
    return len(portraits)


def complete(
    gallery: Gallery,
    engine: Engine,
    backbone: str,
    space: Space,
    report: Report,
    progress: Progress,
) -> None:
    """Embeds what lacks a vector, prepares the search, learns scores; within ``writing``."""
    upkeep.embed_missing(gallery, engine, backbone, report, progress)
    gallery.storage.settle(space, progress)
    upkeep.learn_scores(gallery, space)
