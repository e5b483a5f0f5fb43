"""What is wrong with the set-up, a finding a line, each with its mend."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backbones import BACKBONES
from engine.errors import LookalikeError, WeightsMissing

if TYPE_CHECKING:
    from httpx import Response

    from bot.settings import Settings

__all__ = ["Finding", "Verdict", "examine", "examine_online"]

GIGABYTE = 1_000_000_000
# Resident memory of the process with one, and with each further VGGFace2 network (OpenVINO).
BASE_BYTES, NETWORK_BYTES = 350_000_000, 300_000_000
SDKS = {"telegram": "telegram", "discord": "discord", "web": "nicegui"}
CHAT_PACKAGES = ("aiosqlite", "cryptography", "greenlet", "regex")
TELEGRAM_TOKEN = re.compile(r"\d{6,12}:[A-Za-z0-9_-]{30,}")
DISCORD_TOKEN = re.compile(r"[A-Za-z0-9_-]{18,}\.[A-Za-z0-9_-]{5,8}\.[A-Za-z0-9_-]{25,}")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
TIMEOUT_S = 10.0


class Verdict(StrEnum):
    """How bad it is."""

    FINE = "ok"
    WARNING = "warn"
    BLOCKING = "stop"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        verdict: How bad it is.
        text: What was found; no secret.
        mend: What to do; "" where nothing is to be done.
    """

    subject: str
    verdict: Verdict
    text: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything that can be looked at without the network; takes a second or two."""
    parts: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _home,
        _adapters,
        _telegram,
        _discord,
        _web,
        _weights,
        _gallery,
        _database,
        _processor,
        _memory,
    )
    for part in parts:
        try:
            yield from part(settings)
        except LookalikeError as problem:
            text, _, mend = str(problem).partition(": ")
            yield Finding(part.__name__.strip("_"), Verdict.BLOCKING, text, mend)


async def examine_online(settings: Settings) -> tuple[Finding, ...]:
    """Asks each platform whether it knows the token."""
    import httpx

    findings = []
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        if (token := settings.telegram.token) is not None:
            url = f"{settings.telegram.base_url}{token.get_secret_value()}/getMe"
            findings.append(await _asked("telegram", client.get(url), {401, 404}))
        if (token := settings.discord.token) is not None:
            base = (settings.discord.api_url or "https://discord.com/api/v10").rstrip("/")
            headers = {"Authorization": f"Bot {token.get_secret_value()}"}
            answer = client.get(f"{base}/users/@me", headers=headers)
            findings.append(await _asked("discord", answer, {401}))
    return tuple(findings)


async def _asked(subject: str, answer: Awaitable[Response], refusals: set[int]) -> Finding:
    import httpx

    try:
        status = (await answer).status_code
    except httpx.HTTPError as problem:
        kind = type(problem).__name__  # its message may hold the URL, and that the token
        mend = "check the network; the bot keeps trying by itself"
        return Finding(subject, Verdict.WARNING, f"no answer ({kind})", mend)
    except httpx.InvalidURL:
        return Finding(subject, Verdict.BLOCKING, "its address can't be used", "mend its URL")
    if status in refusals:
        return Finding(subject, Verdict.BLOCKING, "the token is refused", "put in the right token")
    if status != 200:
        text = f"answers with HTTP status {status}"
        return Finding(subject, Verdict.WARNING, text, "try again later")
    return Finding(subject, Verdict.FINE, "the token is known")


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    folder = next(parent for parent in (home, *home.parents) if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding(
            "home", Verdict.BLOCKING, f"{home} can't be written", "choose another with --home"
        )
        return
    yield Finding("home", Verdict.FINE, str(home))
    missing = sum(
        record.size_bytes or 0
        for record in map(BACKBONES.__getitem__, settings.models.configured)
        if not record.bundled and not (settings.models_folder / record.file_name).is_file()
    )
    free = shutil.disk_usage(folder).free
    if settings.models.fetch and free < 3 * missing:
        yield Finding(
            "disk",
            Verdict.WARNING,
            f"only {free / GIGABYTE:.1f} GB are free for models of {missing / GIGABYTE:.1f} GB",
            "make room, or take models out of models.configured",
        )


def _adapters(settings: Settings) -> Iterator[Finding]:
    from bot.app import adapters_wanted

    wanted = adapters_wanted(settings)
    yield Finding("adapters", Verdict.FINE, f"`lookalike run` serves {', '.join(wanted)}")
    for name in wanted:
        missing = [
            package
            for package in (SDKS[name], *CHAT_PACKAGES)
            if importlib.util.find_spec(package) is None
        ]
        if missing:
            yield Finding(
                name,
                Verdict.BLOCKING,
                f"not installed: {', '.join(missing)}",
                f"run `pip install 'lookalike[{name}]'`",
            )


def _telegram(settings: Settings) -> Iterator[Finding]:
    token = settings.telegram.token
    if token is None:
        yield Finding("telegram", Verdict.FINE, "off: no token")
    elif TELEGRAM_TOKEN.fullmatch(token.get_secret_value()) is None:
        yield Finding(
            "telegram",
            Verdict.WARNING,
            "the token does not look like one",
            "copy it again from @BotFather: digits, a colon, 35 characters",
        )
    else:
        yield Finding("telegram", Verdict.FINE, "the token looks right")
    webhook = settings.telegram.webhook
    if webhook.url is not None and not webhook.url.startswith("https://"):
        yield Finding(
            "webhook",
            Verdict.WARNING,
            "Telegram calls webhooks by https only",
            "let telegram.webhook.url begin with https://",
        )


def _discord(settings: Settings) -> Iterator[Finding]:
    token = settings.discord.token
    if token is None:
        yield Finding("discord", Verdict.FINE, "off: no token")
    elif DISCORD_TOKEN.fullmatch(token.get_secret_value()) is None:
        yield Finding(
            "discord",
            Verdict.WARNING,
            "the token does not look like one",
            "copy it again from discord.com/developers, page Bot: three parts with dots",
        )
    else:
        yield Finding("discord", Verdict.FINE, "the token looks right")


def _web(settings: Settings) -> Iterator[Finding]:
    if settings.web.host not in LOOPBACK:
        yield Finding(
            "web",
            Verdict.WARNING,
            f"the web chat listens on {settings.web.host}, and asks nobody for a password",
            "put a proxy with a password before it, or set web.host to 127.0.0.1",
        )


def _weights(settings: Settings) -> Iterator[Finding]:
    from engine.backbones import weights

    configured = dict.fromkeys((*settings.models.configured, "dlib"))
    if settings.default_model not in configured:
        yield Finding(
            "models",
            Verdict.WARNING,
            f"default_model {settings.default_model} is not among models.configured",
            "add it there, or choose another default_model",
        )
    for name in configured:
        try:
            path = weights.installed(name, settings.models_folder)
            weights.checked_sha256(name, path)
        except WeightsMissing:
            if BACKBONES[name].bundled:
                raise
            text = "its weights are not here; until then dlib answers"
            fetched = "wait: the running bot fetches them" if settings.models.fetch else ""
            mend = fetched or f"run `lookalike models download {name}`"
            yield Finding(name, Verdict.WARNING, text, mend)
        except LookalikeError as problem:
            text, _, mend = str(problem).partition(": ")
            verdict = Verdict.BLOCKING if name == "dlib" else Verdict.WARNING
            yield Finding(name, verdict, text, mend)
        else:
            yield Finding(name, Verdict.FINE, "its weights are here and unchanged")


def _has_weights(name: str, settings: Settings) -> bool:
    from engine.backbones import weights

    try:
        weights.installed(name, settings.models_folder)
    except WeightsMissing:
        return False
    return True


def _gallery(settings: Settings) -> Iterator[Finding]:
    from bot.app import has_gallery, open_gallery

    if not has_gallery(settings):
        yield Finding(
            "gallery",
            Verdict.WARNING,
            "there is none yet; the bot begins with two people",
            "add people with `lookalike gallery add FOLDER`",
        )
        return
    with open_gallery(settings) as gallery:
        stats = gallery.stats()
        place = gallery.place if settings.gallery_url else "it"
    if stats.portraits == 0:
        yield Finding(
            "gallery",
            Verdict.WARNING,
            f"there is nobody in {place}",
            "add people with `lookalike gallery add FOLDER`",
        )
        return
    where = f" in {place}" if settings.gallery_url else ""
    text = f"{stats.people:,} people, {stats.portraits:,} portraits{where}"
    yield Finding("gallery", Verdict.FINE, text)
    for name in settings.models.configured:
        if not _has_weights(name, settings):
            continue
        known = max((n for space, n in stats.vectors.items() if space.backbone == name), default=0)
        if known < stats.portraits:
            yield Finding(
                "gallery",
                Verdict.WARNING,
                f"{name} knows {known:,} of {stats.portraits:,} portraits",
                "wait: the running bot completes it once the model is there; or run "
                f"`lookalike gallery build --model {name}`",
            )


def _database(settings: Settings) -> Iterator[Finding]:
    from bot.store.keys import Identity, secret_key
    from bot.store.store import Store, database_url
    from gallery.postgres.server import masked

    path = settings.home / "secret.key"
    given = settings.database.key
    url = database_url(settings.database_url, settings.home)
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(str(url.database)).is_file():
        yield Finding("database", Verdict.FINE, "none yet; it is made at the first start")
        return
    if given is None and not path.is_file() and not is_file:
        yield Finding(
            "database",
            Verdict.WARNING,
            "this machine has no key yet; the first start makes one",
            f"if others use {masked(url)}, give this one their key: database.key or {path}",
        )
        return
    if given is None and not path.is_file():
        yield Finding(
            "database",
            Verdict.BLOCKING,
            f"there is a database, but its key {path} is missing",
            "put secret.key back, or delete the database to start afresh",
        )
        return
    key = secret_key(path, given.get_secret_value() if given else None)

    async def opened() -> None:
        async with Store.open(url, Identity(key), history_days=settings.database.history_days):
            pass

    asyncio.run(opened())
    yield Finding("database", Verdict.FINE, masked(url))
    if given is None and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding(
            "database",
            Verdict.WARNING,
            f"others on this machine can read {path}",
            f"run `chmod 600 {path}`",
        )


def _processor(settings: Settings) -> Iterator[Finding]:
    from engine.runtime import cores

    text = f"{cores()} cores"
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        known = set(re.findall(r"\w+", flags.read_text(errors="replace").split("\n\n")[0]))
        if known & {"avx512_bf16", "amx_bf16"}:
            text += ", computes in bf16"
        elif settings.models.precision == "bf16":
            yield Finding(
                "processor",
                Verdict.WARNING,
                "it does not compute in bf16, which models.precision asks for",
                'set models.precision to "auto"',
            )
    yield Finding("processor", Verdict.FINE, text)


def _memory(settings: Settings) -> Iterator[Finding]:
    if not hasattr(os, "sysconf"):
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    networks = len([name for name in settings.models.configured if name != "dlib"])
    needed = BASE_BYTES + networks * NETWORK_BYTES
    text = f"{total / GIGABYTE:.1f} GB; the configured models need about {needed / GIGABYTE:.1f} GB"
    if total < needed:
        mend = 'take models out of models.configured; ["dlib"] needs least'
        yield Finding("memory", Verdict.WARNING, text, mend)
    else:
        yield Finding("memory", Verdict.FINE, text)
