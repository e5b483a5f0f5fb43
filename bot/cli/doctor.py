"""`lookalike doctor`: what is wrong with the set-up, a finding a line, each with its mend."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from bot.cli.main import EXIT_SETUP, Context, command_options, open_store, opened
from bot.cli.output import say
from engine.errors import BadSettings, LookalikeError, WeightsMissing

if TYPE_CHECKING:
    from bot.settings import Settings

FINE, WARNING, BLOCKING = "ok", "warn", "stop"
COLOURS = {FINE: "green", WARNING: "yellow", BLOCKING: "red"}

GIGABYTE = 1_000_000_000
# Resident memory of the process with one, and with each further VGGFace2 network (OpenVINO).
BASE_BYTES, NETWORK_BYTES = 350_000_000, 300_000_000
SDKS = {"telegram": "telegram", "discord": "discord", "web": "nicegui"}
CHAT_PACKAGES = ("aiosqlite", "cryptography", "greenlet", "regex")
# What a token looks like, and where to copy it again.
TOKENS = {
    "telegram": (
        re.compile(r"\d{6,12}:[A-Za-z0-9_-]{30,}"),
        "copy it again from @BotFather: digits, a colon, 35 characters",
    ),
    "discord": (
        re.compile(r"[A-Za-z0-9_-]{18,}\.[A-Za-z0-9_-]{5,8}\.[A-Za-z0-9_-]{25,}"),
        "copy it again from discord.com/developers, page Bot: three parts with dots",
    ),
}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
TIMEOUT_S = 10.0


class Finding(NamedTuple):
    """One thing that was looked at: what was found (no secret), and what to do about it."""

    subject: str
    verdict: str  # FINE, WARNING or BLOCKING
    text: str
    mend: str = ""


@click.command()
@click.option(
    "--online", is_flag=True, help="Ask Telegram and Discord whether they know the token."
)
@command_options
def doctor(context: Context, *, online: bool) -> None:
    """Look at settings, tokens, weights, gallery, database, processor and memory.

    A line for each finding, with its mend. The exit code is 78 if something keeps the bot from
    running, else 0.
    """
    blocking = False
    for finding in _all_findings(context, online=online):
        blocking |= finding.verdict == BLOCKING
        mark = click.style(f"{finding.verdict:<5}", fg=COLOURS[finding.verdict])
        mend = f" -> {finding.mend}" if finding.mend else ""
        say(f"{finding.subject:<10} {finding.text}{mend}", before=f"{mark} ")
    sys.exit(EXIT_SETUP if blocking else 0)


def _all_findings(context: Context, *, online: bool) -> Iterator[Finding]:
    try:
        settings = context.settings()
    except BadSettings as problem:
        yield Finding("settings", BLOCKING, str(problem))
        return
    yield Finding("settings", FINE, "every setting is known")
    parts: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        *(_home, _adapters, _tokens, _web, _weights, _gallery, _database, _processor, _memory),
    )
    for part in (*parts, _online) if online else parts:
        try:
            yield from part(settings)
        except LookalikeError as problem:
            text, _, mend = str(problem).partition(": ")
            yield Finding(part.__name__.strip("_"), BLOCKING, text, mend)


def _online(settings: Settings) -> Iterator[Finding]:
    if (token := settings.telegram.token) is not None:
        url = f"{settings.telegram.base_url}{token.get_secret_value()}/getMe"
        yield _asked("telegram", url, {}, {401, 404})
    if (token := settings.discord.token) is not None:
        base = (settings.discord.api_url or "https://discord.com/api/v10").rstrip("/")
        headers = {"Authorization": f"Bot {token.get_secret_value()}"}
        yield _asked("discord", f"{base}/users/@me", headers, {401})


def _asked(subject: str, url: str, headers: dict[str, str], refusals: set[int]) -> Finding:
    import httpx

    try:
        status = httpx.get(url, headers=headers, timeout=TIMEOUT_S).status_code
    except httpx.HTTPError as problem:
        kind = type(problem).__name__  # its message may hold the URL, and that the token
        mend = "check the network; the bot keeps trying by itself"
        return Finding(subject, WARNING, f"no answer ({kind})", mend)
    except httpx.InvalidURL:
        return Finding(subject, BLOCKING, "its address can't be used", "mend its URL")
    if status in refusals:
        return Finding(subject, BLOCKING, "the token is refused", "put in the right token")
    if status != 200:
        return Finding(subject, WARNING, f"answers with HTTP status {status}", "try again later")
    return Finding(subject, FINE, "the token is known")


def _home(settings: Settings) -> Iterator[Finding]:
    from engine.backbones import BACKBONES

    home = settings.home
    folder = next(parent for parent in (home, *home.parents) if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding("home", BLOCKING, f"{home} can't be written", "choose another with --home")
        return
    yield Finding("home", FINE, str(home))
    missing = sum(
        record.size_bytes or 0
        for record in map(BACKBONES.__getitem__, settings.models.configured)
        if not record.bundled and not (settings.models_folder / record.file_name).is_file()
    )
    free = shutil.disk_usage(folder).free
    if settings.models.fetch and free < 3 * missing:
        sizes = f"{free / GIGABYTE:.1f} GB are free for models of {missing / GIGABYTE:.1f} GB"
        mend = "make room, or take models out of models.configured"
        yield Finding("disk", WARNING, f"only {sizes}", mend)


def _adapters(settings: Settings) -> Iterator[Finding]:
    from bot.app import adapters_wanted

    wanted = adapters_wanted(settings)
    yield Finding("adapters", FINE, f"`lookalike run` serves {', '.join(wanted)}")
    for name in wanted:
        needed = (SDKS[name], *CHAT_PACKAGES)
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        if missing:
            mend = f"run `pip install 'lookalike[{name}]'`"
            yield Finding(name, BLOCKING, f"not installed: {', '.join(missing)}", mend)


def _tokens(settings: Settings) -> Iterator[Finding]:
    for name, token in (("telegram", settings.telegram.token), ("discord", settings.discord.token)):
        looks, mend = TOKENS[name]
        if token is None:
            yield Finding(name, FINE, "off: no token")
        elif looks.fullmatch(token.get_secret_value()) is None:
            yield Finding(name, WARNING, "the token does not look like one", mend)
        else:
            yield Finding(name, FINE, "the token looks right")
    url = settings.telegram.webhook.url
    if url is not None and not url.startswith("https://"):
        mend = "let telegram.webhook.url begin with https://"
        yield Finding("webhook", WARNING, "Telegram calls webhooks by https only", mend)


def _web(settings: Settings) -> Iterator[Finding]:
    if settings.web.host not in LOOPBACK:
        text = f"the web chat listens on {settings.web.host}, and asks nobody for a password"
        mend = "put a proxy with a password before it, or set web.host to 127.0.0.1"
        yield Finding("web", WARNING, text, mend)


def _weights(settings: Settings) -> Iterator[Finding]:
    from engine.backbones import BACKBONES, weights

    configured = dict.fromkeys((*settings.models.configured, "dlib"))
    if settings.default_model not in configured:
        text = f"default_model {settings.default_model} is not among models.configured"
        yield Finding("models", WARNING, text, "add it there, or choose another default_model")
    for name in configured:
        try:
            path = weights.installed(name, settings.models_folder)
            weights.checked_sha256(name, path)
        except WeightsMissing:
            if BACKBONES[name].bundled:
                raise
            text = "its weights are not here; until then dlib answers"
            fetched = "wait: the running bot fetches them" if settings.models.fetch else ""
            yield Finding(name, WARNING, text, fetched or f"run `lookalike models download {name}`")
        except LookalikeError as problem:
            text, _, mend = str(problem).partition(": ")
            yield Finding(name, BLOCKING if name == "dlib" else WARNING, text, mend)
        else:
            yield Finding(name, FINE, "its weights are here and unchanged")


def _gallery(settings: Settings) -> Iterator[Finding]:
    from bot.app import has_gallery
    from engine.backbones import weights

    add = "add people with `lookalike gallery add FOLDER`"
    if not has_gallery(settings):
        text = "there is none yet; the bot begins with two people"
        yield Finding("gallery", WARNING, text, add)
        return
    with opened(settings) as gallery:
        stats = gallery.stats()
        place = gallery.place if settings.gallery_url else ""
    if stats.portraits == 0:
        yield Finding("gallery", WARNING, f"there is nobody in {place or 'it'}", add)
        return
    where = f" in {place}" if place else ""
    text = f"{stats.people:,} people, {stats.portraits:,} portraits{where}"
    yield Finding("gallery", FINE, text)
    for name in settings.models.configured:
        known = max((n for space, n in stats.vectors.items() if space.backbone == name), default=0)
        try:
            weights.installed(name, settings.models_folder)
        except WeightsMissing:
            continue
        if known < stats.portraits:
            text = f"{name} knows {known:,} of {stats.portraits:,} portraits"
            mend = (
                "wait: the running bot completes it once the model is there; or run "
                f"`lookalike gallery build --model {name}`"
            )
            yield Finding("gallery", WARNING, text, mend)


def _database(settings: Settings) -> Iterator[Finding]:
    from bot.store import database_url
    from gallery.database import masked

    path = settings.home / "secret.key"
    given = settings.database.key
    url = database_url(settings.database_url, settings.home)
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(str(url.database)).is_file():
        yield Finding("database", FINE, "none yet; it is made at the first start")
        return
    if given is None and not path.is_file():
        if is_file:
            text = f"there is a database, but its key {path} is missing"
            mend = "put secret.key back, or delete the database to start afresh"
            yield Finding("database", BLOCKING, text, mend)
        else:
            text = "this machine has no key yet; the first start makes one"
            mend = f"if others use {masked(url)}, give this one their key: database.key or {path}"
            yield Finding("database", WARNING, text, mend)
        return
    open_store(settings)
    yield Finding("database", FINE, masked(url))
    if given is None and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        text = f"others on this machine can read {path}"
        yield Finding("database", WARNING, text, f"run `chmod 600 {path}`")


def _processor(settings: Settings) -> Iterator[Finding]:
    from engine.runtime import cores

    text = f"{cores()} cores"
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        known = set(re.findall(r"\w+", flags.read_text(errors="replace").split("\n\n")[0]))
        if known & {"avx512_bf16", "amx_bf16"}:
            text += ", computes in bf16"
        elif settings.models.precision == "bf16":
            reason = "it does not compute in bf16, which models.precision asks for"
            yield Finding("processor", WARNING, reason, 'set models.precision to "auto"')
    yield Finding("processor", FINE, text)


def _memory(settings: Settings) -> Iterator[Finding]:
    if not hasattr(os, "sysconf"):
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    networks = len([name for name in settings.models.configured if name != "dlib"])
    needed = BASE_BYTES + networks * NETWORK_BYTES
    text = f"{total / GIGABYTE:.1f} GB; the configured models need about {needed / GIGABYTE:.1f} GB"
    if total < needed:
        mend = 'take models out of models.configured; ["dlib"] needs least'
        yield Finding("memory", WARNING, text, mend)
    else:
        yield Finding("memory", FINE, text)
