"""The doors through which bytes of strangers come in, each with what is known to try it.

A target takes any bytes and returns: a photo, people, settings, an answer or a declared error are
all right, and anything else is a finding. Seeds are sound files and what was found earlier, made by
code. ``tests/fuzz/run.py`` looks for more, ``tests/fuzz/test_seeds.py`` tries the seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / part) for part in ("", "engine", "engine/backbones", "gallery")]

from bot.conversation import BUTTONS, COMMANDS, Conversation  # noqa: E402
from bot.settings import known_settings, load_settings  # noqa: E402
from bot.values import Limits, Request, Sender  # noqa: E402
from engine.backbones import Malformed, dlib, vggface  # noqa: E402
from engine.decode import DecodeLimits  # noqa: E402
from engine.decode_worker import read  # noqa: E402
from engine.errors import BadSettings, PhotoProblem, SetupProblem  # noqa: E402
from engine.pickles import pickled_strings, pickled_vectors  # noqa: E402
from gallery import pack  # noqa: E402
from gallery.gallery import Gallery  # noqa: E402
from gallery.transfer import export_gallery, import_file  # noqa: E402

SMALL = DecodeLimits(max_bytes=200_000, max_pixels=250_000, max_frames=20, long_side_px=50)


@dataclass
class Target:
    """Something that takes bytes, and what it is known by."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]] = list
    most_bytes: int = 4_096
    files: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)


def shaped(strategy: st.SearchStrategy[Any], run: Callable[[Any], object]) -> Target:
    """A target whose bytes choose among what a strategy makes."""

    @given(strategy)
    def one(value: Any) -> None:
        run(value)

    return Target(
        one.hypothesis.fuzz_one_input, lambda: [Random(one).randbytes(2_048) for one in range(16)]
    )


class Folder:
    """One file that is written again and again, in memory where the system has such a folder."""

    def __init__(self) -> None:
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz", dir=place)
        self.path = Path(self._folder.name)

    def file(self, content: bytes) -> Path:
        (self.path / "file").write_bytes(content)
        return self.path / "file"


FOLDER = Folder()


# Pictures


def picture(data: bytes) -> None:
    """In this process, so that what our and Pillow's Python did with it is seen."""
    with contextlib.suppress(PhotoProblem):
        image, size, _ = read(data, SMALL)
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= SMALL.max_pixels >= size[0] * size[1]


def pictures() -> list[bytes]:
    from test_decode_fuzz import SIGNATURES, made_files
    from test_decode_limits import DECLARED, bombs

    from engine.backbones.network import portrait_jpeg

    light = [one for one in bombs().values() if len(one) < SMALL.max_bytes]
    return [*SIGNATURES, *DECLARED.values(), *light, *made_files(portrait_jpeg("grace_hopper"))]


# Pickles and weights


def pickles(data: bytes) -> None:
    for reader in (pickled_vectors, pickled_strings):
        with contextlib.suppress(SetupProblem):
            reader(FOLDER.file(data))


def known_pickles() -> list[bytes]:
    import pickle

    from test_pickles import HARMFUL, PATHS, VECTORS, touching

    sound = [pickle.dumps(one, to) for one in (VECTORS, PATHS) for to in range(2, 6)]
    return [*sound, *HARMFUL.values(), *touching(FOLDER.path / "mark").values()]


def weights(data: bytes) -> None:
    """The beginning of dlib's file, and HDF5 as Keras writes it."""
    from test_keras_weights import LAYERS

    with contextlib.suppress(Malformed):
        dlib.read_weights(data)
    if data.startswith(b"\x89HDF"):
        with contextlib.suppress(Malformed):
            vggface.read_weights(FOLDER.file(data), LAYERS)


def known_weights() -> list[bytes]:
    from keras_files import write_keras_file
    from test_keras_weights import DAMAGES, LAYERS

    from engine.backbones.weights import installed

    found = [installed("dlib", Path()).read_bytes()[:3_000]]
    for number, damage in enumerate((None, *DAMAGES)):
        path = write_keras_file(FOLDER.path / f"{number}.h5", LAYERS)
        if damage is not None:
            import h5py

            with h5py.File(path, "r+") as file:
                damage(file)
        found.append(path.read_bytes())
    return found


# Packs: whole files, and sound ones in which values were exchanged and the seal made anew


def made_pack() -> bytes:
    """A pack of three made-up people with tiny pictures."""
    from packed import DLIB, fill

    with tempfile.TemporaryDirectory() as folder:
        with Gallery.open(Path(folder) / "gallery") as gallery:
            fill(gallery, 3, 1, DLIB)
            export_gallery(gallery, Path(folder) / "pack")
        return (Path(folder) / "pack").read_bytes()


def take_in(data: bytes) -> None:
    with contextlib.suppress(SetupProblem), pack.PackReader(FOLDER.file(data)) as opened:
        opened.check()


def taken_in_whole(file: Path) -> None:
    with (
        tempfile.TemporaryDirectory(dir=FOLDER.path) as folder,
        Gallery.open(Path(folder)) as gallery,
        contextlib.suppress(SetupProblem),
    ):
        import_file(gallery, file)


PLACES = ["person", "category", "person_category", "portrait", "thumbnail", "checksum", "banned"]
PLACES += ["space", "portrait_vector", "calibration", "finding", "rejection", "revision"]
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=60),
    st.binary(max_size=600),
    st.sampled_from(["[" * 4_000, "{}", "[[1,2],[3,4],[5,6],[7,8],[9,NaN]]", "Q1", "a" * 5_000]),
)
EDITS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.integers(0, 11), st.integers(1, 3), VALUES),
    min_size=1,
    max_size=4,
)


def edited_pack(edits: list[tuple[str, int, int, Any]]) -> None:
    file = FOLDER.file(gzip.decompress(PACK or _pack()))
    connection = sqlite3.connect(file, isolation_level=None)
    with contextlib.closing(connection):
        for table, column, row, value in edits:
            names = [one[1] for one in connection.execute(f"PRAGMA table_info({table})")]
            name = names[column % len(names)]
            change = f"UPDATE {table} SET {name} = ? WHERE rowid = (SELECT rowid FROM {table} "
            change += "LIMIT 1 OFFSET ?)"
            with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
                connection.execute(change, [value, row - 1])
        pack.seal(connection)
    taken_in_whole(file)


PACK = b""


def _pack() -> bytes:
    global PACK  # noqa: PLW0603 - made once
    PACK = gzip.compress(made_pack())
    return PACK


# Settings


def settings(text: bytes) -> None:
    for name in [name for name in os.environ if name.startswith("LOOKALIKE_")]:
        del os.environ[name]
    with contextlib.suppress(BadSettings):
        load_settings(FOLDER.file(text))


def known_files() -> list[bytes]:
    example = (TESTS.parent / "config.example.toml").read_bytes()
    lines = [
        f"{name} = {value}"
        for name in known_settings()
        for value in ("1", '"x"', "[]", "{}", "-1e400", "nan", "1979-05-27")
    ]
    odd = ["home = " + "9" * 10_000, "home = " + "[" * 10_000, 'home = "~nobody-at-all/x"']
    odd += ['home = "a\\u0000b"', 'gallery.url = "postgresql://a:b@[c"', "\ufeffhome = 1"]
    return [example, b"\xff\xfe", *(one.encode() for one in (*lines, *odd))]


# What chats send: button data, words, updates


class Chat:
    """A conversation on the two people that everybody has; any fault in it is a finding."""

    home: Path | None = None  # a data folder that may be written

    def __init__(self) -> None:
        from homes import make_starter_home
        from talking import chatting

        home = self.home
        if home is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fuzz")
            home = Path(self._folder.name) / "home"
            make_starter_home(home)
        self.runner = asyncio.Runner()
        self._opened = chatting(home, queue={"photos_per_minute": 10**6})
        self.conversation: Conversation = self.runner.run(self._opened.__aenter__())
        self.conversation.listeners.append(self._heard)
        self._faults: list[object] = []
        self._sender = Sender("telegram", "1", "1", "en")
        from engine.backbones.network import portrait_jpeg

        self._photo = portrait_jpeg("grace_hopper")
        self.token = "none"
        reply = self._asked(photos=(self._attached(),))
        self.token = reply.buttons[0][0].action.split(":")[1]

    def _attached(self) -> Any:
        from talking import photo

        return photo(self._photo)

    def _heard(self, facts: dict[str, object], _: dict[str, float]) -> None:
        if facts["outcome"] == "fault":
            self._faults.append(facts)

    def _asked(self, **what: Any) -> Any:
        request = Request(self._sender, **what)
        self.runner.run(self.conversation.remembers(request))
        reply = self.runner.run(self.conversation.answer(request, Limits()))
        assert not self._faults, what
        return reply

    def press(self, parts: list[str]) -> None:
        """A button whose arguments may be anybody's; the photo's token is known to the presser."""
        action = ":".join(self.token if part == "TOKEN" else part for part in parts)
        self._asked(action=action)

    def say(self, said: tuple[str, str]) -> None:
        self._asked(command=said[0] or None, arguments=said[1])


_chats: list[Chat] = []


def chat() -> Chat:
    """Opened at first use."""
    if not _chats:
        _chats.append(Chat())
    return _chats[0]


NUMBERS = st.sampled_from(["0", "1", "2", "-1", "99999", "999999", "\u0661", "1.", "", "all"])
PARTS = st.one_of(st.just("TOKEN"), NUMBERS, st.text(max_size=20), st.sampled_from(["yes", "dlib"]))
PRESSES = st.tuples(st.sampled_from([*BUTTONS, "x", ""]), st.lists(PARTS, max_size=6)).map(
    lambda told: [told[0], *told[1]]
)
# Not /morph, which makes a film, and nothing that fetches.
WORDS = st.tuples(
    st.sampled_from(["", *sorted(set(COMMANDS) - {"morph"}), "nonsense"]), st.text(max_size=200)
)

# By the kind of what they stand in for: Telegram keeps to its types, people choose the values.
LIKE: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**52), 2**52),
    str: st.text(max_size=40) | st.sampled_from(["/top 99", "@lookalike_bot", "a:b:c", "channel"]),
    list: st.sampled_from([[]]),
}
# Of these a message, a user or a file never lacks one.
NEEDED = {"update_id", "id", "is_bot", "first_name", "from", "chat", "type", "date", "message_id"}
NEEDED |= {"chat_instance", "file_id", "file_unique_id", "width", "height", "message"}
NEEDED |= {"callback_query", "edited_message", "is_animated", "is_video"}
USER = {"id": 7, "is_bot": False, "first_name": "Ann", "language_code": "en"}
PHOTO = {"file_id": "f", "file_unique_id": "u", "width": 90, "height": 90, "file_size": 5_000}
FILE = {"file_id": "f", "file_unique_id": "u", "mime_type": "image/png", "file_name": "a.png"}
MESSAGE = {
    "message_id": 3,
    "date": 1_700_000_000,
    "chat": {"id": 7, "type": "private", "first_name": "Ann"},
    "from": USER,
}
KNOWN: list[dict[str, Any]] = [
    {"message": MESSAGE | {"text": "/top 3 film", "entities": [{"type": "bot_command"}]}},
    {"message": MESSAGE | {"photo": [PHOTO], "caption": "@lookalike_bot hi"}},
    {"message": MESSAGE | {"document": FILE, "media_group_id": "9"}},
    {"message": MESSAGE | {"sticker": PHOTO | {"type": "regular", "is_animated": False}}},
    {"message": MESSAGE | {"text": "/compare", "reply_to_message": MESSAGE | {"photo": [PHOTO]}}},
    {"message": MESSAGE | {"chat": {"id": -5, "type": "supergroup", "title": "G"}, "text": "hi"}},
    {"message": MESSAGE | {"guest_query_id": "1", "text": "x"}},
    {"edited_message": MESSAGE | {"caption": "/parents", "photo": [PHOTO], "edit_date": 1}},
    {"callback_query": {"id": "1", "from": USER, "chat_instance": "1", "data": "next:1.a:1:0"}}
    | {"x": 1},
    {
        "callback_query": {
            "id": "1",
            "from": USER,
            "chat_instance": "1",
            "data": "face:a:1",
            "message": MESSAGE | {"reply_to_message": MESSAGE | {"photo": [PHOTO]}},
        }
    },
]


def _paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    inside = enumerate(value) if isinstance(value, list) else ()
    for key, one in value.items() if isinstance(value, dict) else inside:
        yield from _paths(one, (*here, key))


@st.composite
def updates(draw: st.DrawFn) -> bytes:
    """A body that Telegram could send, with other values, or without some."""
    update = json.loads(json.dumps({"update_id": 5} | draw(st.sampled_from(KNOWN))))
    for _ in range(draw(st.integers(0, 4))):
        *path, last = draw(st.sampled_from(list(_paths(update))))
        place = update
        for key in path:
            place = place[key]
        if last not in NEEDED and isinstance(place, dict) and draw(st.booleans()):
            del place[last]
        elif not isinstance(place[last], dict):
            place[last] = draw(LIKE[type(place[last])])
    return json.dumps(update).encode()


class Door:
    """The webhook without a network: a request comes in, its update is read as the bot does."""

    def __init__(self) -> None:
        import telegram

        from bot.adapters.telegram.messages import Reader
        from bot.adapters.telegram.updates import Webhook
        from bot.process_memory import Memory

        async def keep_all(*_: object, **__: object) -> bool:
            return True

        self.runner = asyncio.Runner()
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        bot = telegram.Bot("1:a")
        bot._bot_user = telegram.User(1, "Look", is_bot=True, username="lookalike_bot")
        self._webhook = Webhook(
            SimpleNamespace(bot=bot, update_queue=self.queue),
            SimpleNamespace(keep_all=keep_all),  # type: ignore[arg-type]
            Memory(),
        )
        self._reader = Reader(bot, None, Memory())  # type: ignore[arg-type]

    def receive(self, body: bytes, *, read: bool) -> None:
        self.runner.run(self._receive(body, read=read))

    async def _receive(self, body: bytes, *, read: bool) -> None:
        async def content() -> bytes:
            return body

        headers = {"X-Telegram-Bot-Api-Secret-Token": "s"}
        request: Any = SimpleNamespace(headers=headers, read=content)
        response = await self._webhook._receive("s", request)
        assert response.status in {200, 400}
        while not self.queue.empty():
            update = self.queue.get_nowait()
            if not read:
                continue
            message = update.message or update.guest_message or update.edited_message
            if update.callback_query:
                await self._reader.read_button(update.callback_query)
            elif message:
                await self._reader.read([message], edited=bool(update.edited_message))


_doors: list[Door] = []


def receive(body: bytes, *, read: bool = False) -> None:
    """What arrives at the webhook and, if it is to be ``read``, what the bot makes of it."""
    if not _doors:
        _doors.append(Door())
    _doors[0].receive(body, read=read)


def known_bodies() -> list[bytes]:
    odd = [b"", b"[]", b"{}", b"null", b"[" * 10_000, b'{"update_id": 5, "message": 3}']
    ids = (b"1e400", b"NaN", b'"5"', b"9" * 5_000)
    odd += [b'{"update_id": ' + one + b"}" for one in ids]
    return [*odd, *(json.dumps({"update_id": 5} | one).encode() for one in KNOWN)]


TARGETS = {
    "pictures": Target(picture, pictures, SMALL.max_bytes),
    "packs": Target(take_in, lambda: [made_pack()], 200_000),
    "edited-packs": shaped(EDITS, edited_pack),
    "pickles": Target(pickles, known_pickles),
    "weights": Target(weights, known_weights, 40_000),
    "settings": Target(settings, known_files),
    "buttons": shaped(PRESSES, lambda parts: chat().press(parts)),
    "words": shaped(WORDS, lambda said: chat().say(said)),
    "webhook": Target(receive, known_bodies),
    "updates": shaped(updates(), partial(receive, read=True)),
}
