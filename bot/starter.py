"""What downloads from Wikimedia need of the settings, and the starter gallery.

The starter gallery is what a fresh machine begins with: the most famous of the main categories.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from engine.errors import BadSettings, SetupProblem

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery
    from gallery.harvest import Harvest
    from gallery.progress import Progress
    from gallery.sources.categories import Category
    from gallery.sources.wikimedia import Servers

__all__ = [
    "categories_of",
    "contact_of",
    "decline",
    "declined",
    "download_starter",
    "remember_contact",
    "servers_of",
    "starter_wanted",
]

log = logging.getLogger(__name__)

STARTER_PEOPLE = 200
STARTER_CATEGORIES = (
    *("film", "bollywood", "music", "k-pop", "sports", "politics", "science"),
    *("television", "business", "literature"),
)
STARTER_MIN_FAME = 20  # keeps the questions small


def categories_of(settings: Settings) -> dict[str, Category]:
    """The table of categories, with what the data folder's ``categories.toml`` adds.

    Raises:
        BadSettings: If that file can't be used.
    """
    from gallery.sources.categories import load_categories

    return load_categories(settings.home / "categories.toml")


def contact_of(settings: Settings, gallery: Gallery) -> str | None:
    """Whom Wikimedia can reach about this machine: as set, else as once answered."""
    from gallery.sources.wikimedia import journal_in

    if settings.gallery.contact is not None:
        return settings.gallery.contact
    with journal_in(gallery) as journal:
        remembered: str | None = journal.get("note", "contact")
    return remembered


def remember_contact(gallery: Gallery, contact: str) -> None:
    """Keeps an answer, so that nobody is asked again.

    Raises:
        BadSettings: If it is neither an e-mail address nor a web address.
    """
    from gallery.sources.courier import user_agent
    from gallery.sources.wikimedia import journal_in

    user_agent(contact)
    with journal_in(gallery) as journal:
        journal.put("note", "contact", contact.strip())


def decline(gallery: Gallery) -> None:
    """Keeps that nobody wants to give a contact, so that starting the bot asks no more."""
    from gallery.sources.wikimedia import journal_in

    with journal_in(gallery) as journal:
        journal.put("note", "contact declined", True)


def declined(gallery: Gallery) -> bool:
    """Whether nobody wanted to give a contact."""
    from gallery.sources.wikimedia import journal_in

    with journal_in(gallery) as journal:
        return bool(journal.get("note", "contact declined"))


def servers_of(settings: Settings, gallery: Gallery) -> Servers:
    """Whom to ask, and as whom.

    Raises:
        BadSettings: If nobody has said whom Wikimedia can reach.
    """
    from gallery.sources.wikimedia import Servers

    contact = contact_of(settings, gallery)
    if contact is None:
        raise BadSettings(
            "Wikimedia asks whoever fetches pictures for a contact: set gallery.contact to your "
            "e-mail address or web page (in config.toml, or as LOOKALIKE_GALLERY__CONTACT)"
        )
    return Servers(contact, settings.gallery.wikidata_url, settings.gallery.commons_url)


def starter_wanted(gallery: Gallery) -> bool:
    """Whether the starter gallery has yet to be downloaded, or was begun and not finished."""
    from gallery.sources.bundled import bundled_portraits
    from gallery.sources.wikimedia import journal_in

    with journal_in(gallery) as journal:
        state = journal.get("note", "starter")
    return bool(state == "begun") or (
        state is None and gallery.stats().people <= len(bundled_portraits())
    )


def download_starter(
    gallery: Gallery,
    engine: Engine,
    settings: Settings,
    limit: int = STARTER_PEOPLE,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Harvest | None:
    """Downloads the most famous people of the main categories, one portrait each.

    For a thread in the background: people can be found as soon as they are enrolled (after
    ``gallery.refresh``). It may be killed at any moment; the next call goes on.

    Args:
        gallery: Where.
        engine: With every configured backbone whose weights are there.
        settings: In force.
        limit: How many people.
        progress: Told how far it is.
        stop: Set it to end the work, then wait for the thread; it is set afterwards.

    Returns:
        What it did; None if there was nothing to do.

    Raises:
        SourceDown: If there is no network; what was done is kept.
        Busy: If another process is changing the gallery.
        SetupProblem: If ``gallery.contact`` is missing, or no backbone can be used.
    """
    from gallery.harvest import Order, download
    from gallery.progress import no_progress
    from gallery.sources.categories import chosen
    from gallery.sources.wikimedia import journal_in

    if not starter_wanted(gallery):
        return None
    servers = servers_of(settings, gallery)
    backbones = [name for name in settings.models.configured if not engine.why_unavailable(name)]
    if not backbones:
        raise SetupProblem("no backbone can be used: run `lookalike models list`")
    with journal_in(gallery) as journal:
        journal.put("note", "starter", "begun")
    table = categories_of(settings)
    order = Order(
        categories=chosen(table, STARTER_CATEGORIES),
        limit=limit,
        min_fame=STARTER_MIN_FAME,
        portraits=1,
        fairly=True,
        credited=tuple(table.values()),
    )
    harvest = download(
        gallery,
        engine,
        order,
        servers,
        backbones=backbones,
        progress=progress or no_progress,
        warn=lambda sentence: log.warning("table of categories", extra={"reason": sentence}),
        stop=stop,
    )
    if not harvest.report.interrupted:
        with journal_in(gallery) as journal:
            journal.put("note", "starter", "done")
    return harvest
