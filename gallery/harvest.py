"""Downloads people from Wikidata and Wikimedia Commons into a gallery."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gallery import registrar
from gallery.build import add
from gallery.database import changing
from gallery.never_again import REMOVED, barred
from gallery.report import Progress, Report, no_progress
from gallery.screen import Reason
from gallery.sources.categories import Category
from gallery.sources.celebrities import Celebrity, most_famous
from gallery.sources.courier import Patience, Stopped
from gallery.sources.wikimedia import Servers, Wikimedia

if TYPE_CHECKING:
    from engine.pipeline import Engine
    from gallery.collection import Gallery

__all__ = ["Harvest", "LeftOut", "Order", "download"]


@dataclass(frozen=True, slots=True)
class Order:
    """Who is wanted.

    Attributes:
        categories: At least one.
        limit: At most so many people, the most famous.
        min_fame: Nobody with articles in fewer wikis.
        portraits: At most so many of each person.
        fairly: Every category in turn gives its most famous, instead of the most famous of all.
        credited: Further categories that nobody is looked for in, but people may belong to.
    """

    categories: tuple[Category, ...]
    limit: int
    min_fame: int = 0
    portraits: int = 3
    fairly: bool = False
    credited: tuple[Category, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Somebody without a portrait.

    Attributes:
        name: Whom.
        q_id: Their Wikidata id.
        reason: Why.
    """

    name: str
    q_id: str
    reason: str


@dataclass(slots=True)
class Harvest:
    """What a download did.

    Attributes:
        wanted: How many people were chosen.
        there: How many of them are in the gallery now.
        left_out: The others, but for those who were not reached.
        report: What became of the pictures.
    """

    wanted: int = 0
    there: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    def reasons(self) -> Counter[str]:
        """People left out, by reason."""
        return Counter(one.reason.partition(" (")[0] for one in self.left_out)

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "people": self.wanted,
            "in_gallery": self.there,
            "left_out": [
                {"person": one.name, "wikidata_id": one.q_id, "reason": one.reason}
                for one in self.left_out
            ],
            "left_out_by_reason": dict(self.reasons().most_common()),
            **self.report.to_json(),
        }


def download(
    gallery: Gallery,
    engine: Engine,
    order: Order,
    servers: Servers,
    *,
    backbones: Sequence[str],
    progress: Progress = no_progress,
    refresh: bool = False,
    patience: Patience | None = None,
    stop: threading.Event | None = None,
) -> Harvest:
    """Adds the people of an order; may be stopped at any moment and goes on from there.

    Args:
        gallery: Where.
        engine: Sees and embeds.
        order: Who.
        servers: Whom to ask.
        backbones: Names, at least one; the first compares faces, dlib if it is among them.
        progress: Told about lists, people and vectors.
        refresh: Ask again what was answered in the last 30 days.
        patience: How long to wait for the servers.
        stop: Ends the work, pauses included, when somebody sets it; it is set afterwards.

    Raises:
        SourceDown: If a server does not answer; what was done is kept.
        Busy: If another process is downloading, or changing the gallery.
        SetupProblem: If something has to be set up first.
    """
    judge = "dlib" if "dlib" in backbones else backbones[0]
    with Wikimedia(
        gallery, engine, servers, backbone=judge, patience=patience, stop=stop
    ) as source:
        if refresh:
            source.journal.forget("people", "members", "file", "verdict")
        try:
            return _harvested(source, gallery, engine, order, backbones, progress)
        except Stopped:
            return Harvest(report=Report(interrupted=True))


def _harvested(
    source: Wikimedia,
    gallery: Gallery,
    engine: Engine,
    order: Order,
    backbones: Sequence[str],
    progress: Progress,
) -> Harvest:
    away = barred(gallery)
    found = source.survey(
        order.categories,
        people=order.limit + len(away.keys),
        min_fame=order.min_fame,
        credited=order.credited,
        progress=progress,
    )
    people = most_famous(
        [one for one in found if source.picker.person(one) not in away],
        order.limit,
        fairly=order.fairly,
    )
    _complete_known(gallery, source, people)

    def without_photos(what: str, done: int, total: int | None) -> None:
        if what != "photos":  # people are counted, not their photos
            progress(what, done, total)

    portraits = source.portraits(people, order.portraits, progress)
    try:
        report = add(gallery, engine, portraits, backbones=backbones, progress=without_photos)
    except BaseException:
        source.settle(everything=False)
        raise
    finally:
        portraits.close()
    _remember_too_large(source, people, report)
    source.settle(everything=not report.interrupted)
    harvest = Harvest(wanted=len(people), report=report)
    _account(harvest, gallery, source, people)
    harvest.left_out += [
        LeftOut(one.name or one.q_id, one.q_id, REMOVED)
        for one in found[: order.limit]
        if source.picker.person(one) in away
    ]
    return harvest


def _complete_known(gallery: Gallery, source: Wikimedia, people: Iterable[Celebrity]) -> None:
    """Notes what is new about people who are in the gallery: categories, fame."""
    there = {person.key: person for person in gallery.people()}
    news = []
    for celebrity in people:
        person = source.picker.person(celebrity)
        known = there.get(person.key)
        if known is not None and (
            not set(person.categories) <= set(known.categories)
            or (person.fame, person.country or known.country, person.gender or known.gender)
            != (known.fame, known.country, known.gender)
        ):
            news.append(person)
    if news:
        with gallery.writing(), changing(gallery.catalogue.database) as connection:
            for person in news:
                registrar.enrol_person(connection, person)
            registrar.note_change(connection)
        gallery.refresh()


def _remember_too_large(source: Wikimedia, people: Iterable[Celebrity], report: Report) -> None:
    """Notes the only refusal for good that the gallery itself does not remember."""
    too_large = {
        one.photo.removeprefix("File:") for one in report.rejected if one.reason == Reason.TOO_LARGE
    }
    if too_large:
        for celebrity in people:
            for title in too_large.intersection(celebrity.images):
                source.picker.note(celebrity.q_id, title, Reason.TOO_LARGE)


def _account(
    harvest: Harvest, gallery: Gallery, source: Wikimedia, people: Iterable[Celebrity]
) -> None:
    there = {person.key for person in gallery.people()}
    for celebrity in people:
        person = source.picker.person(celebrity)
        if person.key in there:
            harvest.there += 1
            continue
        reason = source.picker.reason(celebrity)
        if reason is None and not harvest.report.interrupted:
            reason = "no picture could be fetched"
        if reason is not None:
            harvest.left_out.append(LeftOut(person.name, celebrity.q_id, reason))
