"""`lookalike doctor`: what is wrong with the set-up, a finding a line, each with its mend."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.background import FEW_PEOPLE, contact_of
from bot.cli import main as cli
from bot.cli.output import numbered, people_of, say
from engine.errors import BadSettings, LookalikeError, WeightsMissing

if TYPE_CHECKING:
    from bot.settings import Settings

FINE, WARNING, BLOCKING = "ok", "warn", "stop"

GIGABYTE = 1_000_000_000
# Resident memory of the process with one, and with each further VGGFace2 network (OpenVINO).
BASE_BYTES, NETWORK_BYTES = 350_000_000, 300_000_000
# What a token looks like, and where to copy it again.
TOKENS = {
    "telegram": (
        r"\d{6,12}:[A-Za-z0-9_-]{30,}",
        "copy it again from @BotFather: digits, a colon, 35 characters",
    ),
    "discord": (
        r"[A-Za-z0-9_-]{18,}\.[A-Za-z0-9_-]{5,8}\.[A-Za-z0-9_-]{25,}",
        "copy it again from discord.com/developers, page Bot: three parts with dots",
    ),
}
# What was looked at, FINE, WARNING or BLOCKING, what was found (no secret), what to do about it.
Finding = tuple[str, ...]


@click.command(cls=cli.Command, json="")
@click.option(
    "--online", is_flag=True, help="Ask Telegram and Discord whether they know the token."
)
def doctor(context: cli.Context, *, online: bool) -> None:
    """Look at settings, tokens, weights, gallery, database, processor and memory.

    A line for each finding, with its mend. The exit code is 78 if something keeps the bot from
    running, else 0.
    """
    blocking = False
    for subject, level, *words in _all_findings(context, online=online):
        blocking |= level == BLOCKING
        mark = click.style(f"{level:<5}", fg={FINE: "green", WARNING: "yellow"}.get(level, "red"))
        say(f"{subject:<10} " + " -> ".join(filter(None, words)), before=f"{mark} ")
    sys.exit(cli.EXIT_SETUP if blocking else 0)


def _all_findings(context: cli.Context, *, online: bool) -> Iterator[Finding]:
    try:
        settings = context.settings
    except BadSettings as problem:
        yield "settings", BLOCKING, str(problem)
        return
    yield "settings", FINE, "every setting is known"
    parts = (_home, _adapters, _tokens, _weights, _gallery, _database, _machine, _online)
    for part in parts if online else parts[:-1]:
        try:
            yield from part(settings)
        except LookalikeError as problem:
            text, _, mend = str(problem).partition(": ")
            yield part.__name__.strip("_"), BLOCKING, text, mend


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
        status = httpx.get(url, headers=headers, timeout=10.0).status_code
    except httpx.HTTPError as problem:
        kind = type(problem).__name__  # its message may hold the URL, and that the token
        mend = "check the network; the bot keeps trying by itself"
        return subject, WARNING, f"no answer ({kind})", mend
    except httpx.InvalidURL:
        return subject, BLOCKING, "its address can't be used", "mend its URL"
    if status in refusals:
        return subject, BLOCKING, "the token is refused", "put in the right token"
    if status != 200:
        return subject, WARNING, f"answers with HTTP status {status}", "try again later"
    return subject, FINE, "the token is known"


def _home(settings: Settings) -> Iterator[Finding]:
    from engine.backbones import BACKBONES

    home = settings.home
    folder = next(parent for parent in (home, *home.parents) if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield "home", BLOCKING, f"{home} can't be written", "choose another with --home"
        return
    yield "home", FINE, str(home)
    records = [BACKBONES[name] for name in settings.models.configured]
    lacking = [one for one in records if not (settings.models_folder / one.file_name).is_file()]
    missing = sum(one.size_bytes or 0 for one in lacking if not one.bundled)
    free = shutil.disk_usage(folder).free
    if settings.models.fetch and free < 3 * missing:
        sizes = f"{free / GIGABYTE:.1f} GB are free for models of {missing / GIGABYTE:.1f} GB"
        mend = "make room, or take models out of models.configured"
        yield "disk", WARNING, f"only {sizes}", mend


def _adapters(settings: Settings) -> Iterator[Finding]:
    from bot.adapters import listening_socket
    from bot.app import adapters_wanted

    wanted = adapters_wanted(settings)
    yield "adapters", FINE, f"`lookalike run` serves {', '.join(wanted)}"
    for name in wanted:
        sdk = {"web": "nicegui"}.get(name, name)
        needed = (sdk, "cryptography", "regex")
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        if missing:
            mend = f"run `pip install 'lookalike[{name}]'`"
            yield name, BLOCKING, f"not installed: {', '.join(missing)}", mend
    web, webhook = settings.web, settings.telegram.webhook
    if web.unguarded and "web" in wanted:
        mend = "set web.password, web.trusted_proxy or web.host = 127.0.0.1"
        yield "web", BLOCKING, f"the web chat would let everybody in at {web.host}", mend
    places = [("web", web.host, web.port)] * ("web" in wanted)
    places += [("telegram.webhook", webhook.listen, webhook.port)] * (webhook.url is not None)
    for setting, host, port in places:
        try:
            listening_socket(host, port).close()
        except OSError as problem:
            reason = str(problem.strerror).partition(" (")[0]
            text = f"can't listen on {host}:{port} ({reason})"
            mend = f"if that is not the running bot, set {setting}.port to another number"
            yield setting, WARNING, text, mend


def _tokens(settings: Settings) -> Iterator[Finding]:
    for name, token in (("telegram", settings.telegram.token), ("discord", settings.discord.token)):
        looks, mend = TOKENS[name]
        if token is None:
            yield name, FINE, "off: no token"
        elif re.fullmatch(looks, token.get_secret_value()) is None:
            yield name, WARNING, "the token does not look like one", mend
        else:
            yield name, FINE, "the token looks right"
    url = settings.telegram.webhook.url
    if url is not None and not url.startswith("https://"):
        mend = "let telegram.webhook.url begin with https://"
        yield "webhook", WARNING, "Telegram calls webhooks by https only", mend


def _weights(settings: Settings) -> Iterator[Finding]:
    from bot.app import open_engine
    from engine.backbones import BACKBONES, weights

    if (service := open_engine(settings).service) is not None:
        with service:
            service.connect()
            for name, what in service.offers().items():
                yield name, FINE, f"of {service}: {what}"
        return
    configured = dict.fromkeys((*settings.models.configured, "dlib"))
    if settings.default_model not in configured:
        text = f"default_model {settings.default_model} is not among models.configured"
        yield "models", WARNING, text, "add it there, or choose another default_model"
    for name in configured:
        level, text, mend = FINE, "its weights are here and unchanged", ""
        try:
            weights.checked_sha256(name, weights.installed(name, settings.models_folder))
        except LookalikeError as problem:
            level = BLOCKING if name == "dlib" else WARNING
            text, _, mend = str(problem).partition(": ")
            if isinstance(problem, WeightsMissing) and not BACKBONES[name].bundled:
                text = "its weights are not here; until then dlib answers"
                fetched = "wait: the running bot fetches them" if settings.models.fetch else ""
                mend = fetched or f"run `lookalike models download {name}`"
        yield name, level, text, mend


def _gallery(settings: Settings) -> Iterator[Finding]:
    from bot.app import has_gallery, open_gallery
    from engine.backbones import weights

    add = "add people with `lookalike gallery add FOLDER`"
    if not has_gallery(settings):
        text = "there is none yet; the bot begins with two people"
        yield "gallery", WARNING, text, add
        return
    with open_gallery(settings) as gallery:
        stats = gallery.stats()
        place = gallery.place if settings.gallery_url else ""
        told = contact_of(settings, gallery)
    bots = "the bot's own page, once it has run" if settings.telegram.token else "nobody yet"
    yield "wikimedia", FINE, f"is told whom it can reach about downloads: {told or bots}"
    if stats.portraits == 0:
        yield "gallery", WARNING, f"there is nobody in {place or 'it'}", add
        return
    text = f"{people_of(stats.people)}, {numbered(stats.portraits, 'portrait')}"
    text += f" in {place}" * bool(place)
    if stats.people < FEW_PEOPLE:
        mend = "get famous people with `lookalike gallery download`, or add your own"
        yield "gallery", WARNING, f"only {text}: nobody finds a double among so few", mend
    else:
        yield "gallery", FINE, text
    for name in settings.models.configured:
        known = max((n for space, n in stats.vectors.items() if space.backbone == name), default=0)
        try:
            weights.installed(name, settings.models_folder)
        except WeightsMissing:
            continue
        if known < stats.portraits:
            text = f"{name} knows {known:,} of {stats.portraits:,} portraits"
            wait = "wait: the running bot completes it once the model is there"
            mend = f"{wait}; or run `lookalike gallery build --model {name}`"
            yield "gallery", WARNING, text, mend


def _database(settings: Settings) -> Iterator[Finding]:
    from bot.store import database_url
    from gallery.database import masked

    path = settings.home / "secret.key"
    given = settings.database.key
    url = database_url(settings.database_url, settings.home)
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(str(url.database)).is_file():
        yield "database", FINE, "none yet; it is made at the first start"
        return
    if given is None and not path.is_file():
        level, text = BLOCKING, f"there is a database, but its key {path} is missing"
        mend = "put secret.key back, or delete the database to start afresh"
        if not is_file:
            level, text = WARNING, "this machine has no key yet; the first start makes one"
            mend = f"if others use {masked(url)}, give this one their key: database.key or {path}"
        yield "database", level, text, mend
        return
    cli.open_store(settings)
    yield "database", FINE, masked(url)
    if given is None and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        text = f"others on this machine can read {path}"
        yield "database", WARNING, text, f"run `chmod 600 {path}`"


def _machine(settings: Settings) -> Iterator[Finding]:
    from engine.runtime import cores

    text, flags = f"{cores()} cores", Path("/proc/cpuinfo")
    if flags.is_file():
        known = set(re.findall(r"\w+", flags.read_text(errors="replace").split("\n\n")[0]))
        if known & {"avx512_bf16", "amx_bf16"}:
            text += ", computes in bf16"
        elif settings.models.precision == "bf16":
            reason = "it does not compute in bf16, which models.precision asks for"
            yield "processor", WARNING, reason, 'set models.precision to "auto"'
    yield "processor", FINE, text
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        networks = len([name for name in settings.models.configured if name != "dlib"])
        needed = BASE_BYTES + networks * NETWORK_BYTES
        needs = f"the configured models need about {needed / GIGABYTE:.1f} GB"
        mend = 'take models out of models.configured; ["dlib"] needs least' * (total < needed)
        level = WARNING if mend else FINE
        yield "memory", level, f"{total / GIGABYTE:.1f} GB; {needs}", mend
