"""An engine elsewhere: what travels between a bot and the service, and the bot's end of it.

A message, either way, is eight bytes that name its kind and version, the length of its header (4
bytes), the header (JSON), and the arrays that the header declares, as they lie in memory (little
endian). Nobody trusts the other end: what is not declared, too long, not finite or of another
shape is no message. Photos, faces and vectors are held in memory, and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from engine import errors
from engine.backbones import BACKBONES
from engine.backbones.network import Backbone
from engine.errors import BadSettings, Busy, LookalikeError, SetupProblem, SpaceMismatch
from engine.types import Box, Concern, Embedding, Face, Photo

T = TypeVar("T")
Look = tuple[Photo, tuple[Face, ...], dict[str, Embedding]]
Header = dict[str, Any]
Arrays = list[NDArray[Any]]

# Over http there is nobody to trust: to read the certificates would take 20 ms.
_NONE: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
MAGIC: Final = b"lookal\x00\x01"  # the last byte is the version
MOST_REPLY_BYTES: Final = 4_000_000
MOST_HEADER_BYTES: Final = 500_000
MOST_FACES: Final = 2_000
MOST_SIDE_PX: Final = 1_000_000
SENTENCE_CHARS: Final = 400  # of an error's message
CONNECT_S: Final = 2.0  # for a connection, and for the answer that says who is there
LOOK_AFTER_S: Final = 15.0
FIRST_PAUSE_S: Final = 0.5  # before it is tried again; doubled each time, times 0.5 to 1.5
LONGEST_PAUSE_S: Final = 15.0
_DTYPES: Final = {name: np.dtype(name) for name in ("|u1", "<f4", "<f8")}

log = logging.getLogger(__name__)


class Malformed(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """Bytes that are no message; it says in what way."""


def pack(header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> bytes:
    """A message; arrays are uint8, float32 or float64."""
    arrays = [one.astype(one.dtype.newbyteorder("<"), copy=False) for one in arrays]
    declared = [[one.dtype.str, one.shape] for one in arrays]
    head = json.dumps({**header, "arrays": declared}).encode()
    start = MAGIC + len(head).to_bytes(4, "little") + head
    return b"".join([start, *(one.tobytes() for one in arrays)])


def unpack(message: bytes) -> tuple[Header, Arrays]:
    """Header and arrays, which share the message's memory; raises Malformed."""
    start = len(MAGIC) + 4
    length = int.from_bytes(message[len(MAGIC) : start], "little")
    if message[: len(MAGIC)] != MAGIC or not 2 <= length <= MOST_HEADER_BYTES:
        raise Malformed("it is not of this protocol, or of another version of it")
    try:
        header = json.loads(message[start : start + length])
        arrays, at = [], start + length
        for name, shape in header.pop("arrays"):
            dtype, sides = _DTYPES[name], [int(side) for side in shape]
            count = math.prod(sides)
            if len(sides) > 4 or min(sides, default=0) < 0 or count > len(message):
                raise Malformed("an array of it has an impossible shape")
            arrays.append(np.frombuffer(message, dtype, count, at).reshape(sides))
            at += arrays[-1].nbytes
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as problem:
        raise Malformed("it is incomplete, or not what it declares") from problem
    if at != len(message):
        raise Malformed("it is longer than it declares")
    return header, arrays


def problem_header(problem: LookalikeError) -> Header:
    """What travels of an error."""
    plain = {k: v for k, v in problem.details.items() if isinstance(v, (str, int, float))}
    return {"problem": type(problem).__name__, "message": str(problem), "details": plain}


def read_problem(header: Header) -> LookalikeError:
    """The error that travelled; raises Malformed if there is no such kind."""
    kind = vars(errors).get(str(header["problem"]))
    if not (isinstance(kind, type) and issubclass(kind, LookalikeError)):
        raise Malformed("it names an unknown error")
    details = [(k, v) for k, v in header["details"].items() if isinstance(v, (str, int, float))]
    short = {k: v[:SENTENCE_CHARS] if isinstance(v, str) else v for k, v in details[:8]}
    return kind(str(header["message"])[:SENTENCE_CHARS], **short)


def space_facts(network: Backbone) -> list[str | int]:
    """What two backbones have in common whose vectors may be compared, and their precision."""
    space = network.space
    return [space.weights_sha256, space.recipe, space.dimensions, network.precision]


def faces_content(faces: Sequence[Face]) -> tuple[Header, Arrays]:
    """Faces as a part of a header and three arrays: boxes, landmarks, confidences."""
    boxes = [(face.box.x, face.box.y, face.box.w, face.box.h) for face in faces]
    landmarks = np.array([face.landmarks for face in faces], np.float32).reshape(-1, 5, 2)
    confidences = np.array([face.confidence for face in faces], np.float64)
    header = {"concerns": [[*face.concerns] for face in faces]}
    return header, [np.array(boxes, np.float64).reshape(-1, 4), landmarks, confidences]


def read_faces(header: Header, arrays: Arrays, size_px: tuple[int, int]) -> tuple[Face, ...]:
    """Faces in a photo of that width and height; raises Malformed if they can't be in it."""
    boxes, landmarks, confidences = arrays[:3]
    concerns, count = header["concerns"], len(boxes)
    shapes = [one.shape for one in arrays[:3]]
    if count > MOST_FACES or shapes != [(count, 4), (count, 5, 2), (count,)]:
        raise Malformed("its faces are incomplete")
    # Faces reach a little beyond the edges of a photo.
    reach = 2.0 * max(size_px)
    inside = all(bool((np.abs(one) <= reach).all()) for one in (boxes, landmarks))
    if not (inside and ((confidences >= 0) & (confidences <= 1)).all()):
        raise Malformed("its faces are not in the photo")
    return tuple(
        Face(Box(*box.tolist()), points.astype(np.float32), float(sure), tuple(map(Concern, why)))
        for box, points, sure, why in zip(boxes, landmarks, confidences, concerns, strict=True)
    )


class _Failed(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """A question without an answer that can be used; ``late``: it took too long."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


@dataclass(eq=False)
class EngineService(contextlib.AbstractContextManager["EngineService"]):
    """The bot's end: asks the service over HTTP; safe to call from several threads at once.

    A question that fails is asked once more, which leads to another replica where the one that had
    it is gone, and again where its end was not noticed yet. If nobody is there, every question is
    refused at once as Busy until ``tend`` has reached the service, in growing pauses. A service
    that sees or embeds otherwise than this end wants is refused with a sentence.
    """

    url: str
    secret: str | None = field(default=None, repr=False)
    # What must be the same at both ends, such as ``photo.long_side_px``
    same: Mapping[str, object] = field(default_factory=dict)
    precision: str = "auto"  # this end insists on it, unless it is "auto" or "float"
    answer_s: float = 30.0  # longest time for an answer
    again_s: tuple[float, ...] = (0.1, 0.5)  # pauses after which what failed is asked again
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        import httpx  # for who has such an engine

        self.reached = False
        self.retried = 0  # questions that were asked once more
        self.host = urlsplit(self.url).netloc
        self._reason = ""  # why it is away
        self._failures = 0  # since it was reached last
        self._tried, self._due = -math.inf, -math.inf  # when it was, and is to be, looked after
        self._lock = threading.Lock()  # held by who connects
        self._models: dict[str, Backbone | str] = {}  # or why there is none
        known = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        self._client = httpx.Client(
            base_url=self.url,
            headers={**known, "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=None),
            trust_env=False,  # photos go nowhere else
            verify=ssl.create_default_context() if self.url.startswith("https:") else _NONE,
        )

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def __str__(self) -> str:
        return f"the engine at {self.host}"

    def refuse_if_away(self) -> None:
        """Raises Busy, at once, if the service was not reached when it was tried last."""
        if self._failures:
            raise Busy(self._reason, seconds=max(1.0, self._due - self.clock()))

    def tend(self) -> None:
        """Looks after the service when that is due."""
        if self.clock() >= self._due:
            with contextlib.suppress(LookalikeError):
                self.connect()

    def connect(self) -> None:
        """Reaches the service, and compares it with what is wanted and with what it was before.

        Raises Busy if nobody answers, BadSettings or SpaceMismatch if it can't be used.
        """
        began = self.clock()
        with self._lock:
            if self._tried > began:  # somebody else just did
                self.refuse_if_away()
                return
            try:
                self._post(pack({"ask": "facts"}), CONNECT_S, self._compare)
            except (LookalikeError, _Failed) as problem:
                wanted = problem if isinstance(problem, LookalikeError) else None
                told = f"{self} can't be reached ({problem})"
                reason, grown_s = str(wanted or told), FIRST_PAUSE_S * 2.0**self._failures
                if reason != self._reason:
                    log.warning("engine away", extra={"reason": reason})
                self.reached, self._reason = False, reason
                self._failures = min(self._failures + 1, 20)
                chance = 0.5 + random.random()  # noqa: S311 - to scatter, not to hide
                self._due = self.clock() + min(LONGEST_PAUSE_S, grown_s) * chance
                if wanted is not None:
                    raise
                self.refuse_if_away()
            finally:
                self._tried = self.clock()
            if self._failures:
                log.info("engine reached again")
            self.reached, self._failures, self._reason = True, 0, ""
            self._due = self.clock() + LOOK_AFTER_S

    def backbone(self, name: str) -> Backbone:
        """A backbone whose network is elsewhere; raises WeightsMissing if there is none."""
        if not isinstance(self._models.get(name), Backbone):
            self.connect()
        found = self._models.get(name, f"{self} offers no {name}")
        if isinstance(found, str):
            raise errors.WeightsMissing(found)
        return found

    def offers(self) -> dict[str, str]:
        """The precision of each backbone when it was connected last, or why there is none."""
        found = self._models.items()
        return {name: one if isinstance(one, str) else one.precision for name, one in found}

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """The faces in pixels, see ``engine.engine.FaceFinder``; a picture file is lighter."""
        size = photo.width_px, photo.height_px
        read = functools.partial(read_faces, size_px=size)
        return self.ask({"ask": "detect", "source": photo.source_size_px}, [photo.pixels], read)

    def look(self, data: bytes, models: Sequence[str], decode: Callable[..., Photo]) -> Look:
        """See ``Engine.look``; the picture file is decoded here meanwhile, for the card."""
        networks = [self.backbone(name) for name in models]

        def read(header: Header, arrays: Arrays) -> tuple[Any, ...]:
            size_px = tuple(int(side) for side in header["size"])
            part = header["part"] and tuple(int(edge) for edge in header["part"])
            if part and (len(part) != 4 or not 0 <= min(part) <= max(part) <= MOST_SIDE_PX):
                raise Malformed("it looked at an impossible part")
            found = {}
            for one, facts, row in zip(networks, header["models"], arrays[3:], strict=False):
                (vector,) = self._vectors({"model": facts}, [row], one.record.name, 1)
                found[one.record.name] = Embedding(vector, one.space)
            faces = read_faces(header, arrays[:3], (size_px[0], size_px[1]))
            return size_px, part, 1 + (header["finer"] == 2), faces, found

        question = {"ask": "look", "models": models}
        with ThreadPoolExecutor(1) as beside:
            decoded = beside.submit(decode, data)
            try:
                reply = self.ask(question, [np.frombuffer(data, np.uint8)], read)
            finally:
                photo = decoded.result()  # what is wrong with the picture is said first
        size_px, part, finer, faces, found = reply
        if part or finer > 1:
            photo = decode(data, part or None, finer)
        if (photo.width_px, photo.height_px) != size_px:
            raise SetupProblem(f"{self} decodes otherwise: install the same version there")
        return photo, faces, found

    def _run(self, model: str, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Backbone.run``."""
        read = functools.partial(self._vectors, model=model, count=len(crops))
        return self.ask({"ask": "embed", "model": model}, [crops], read)

    def _vectors(
        self, header: Header, arrays: Arrays, model: str, count: int
    ) -> NDArray[np.float32]:
        """So many vectors; raises SpaceMismatch if they are of other weights or precision."""
        network, vectors = self.backbone(model), arrays[0]
        if header["model"] != space_facts(network):
            raise SpaceMismatch(
                f"{self} has changed its {model} since this program was connected: start this "
                "program again"
            )
        if vectors.shape != (count, network.space.dimensions) or not np.isfinite(vectors).all():
            raise Malformed("it has other vectors than were asked for")
        return vectors.astype(np.float32)

    def ask(
        self, header: Header, arrays: Sequence[NDArray[Any]], read: Callable[[Header, Arrays], T]
    ) -> T:
        """What ``read`` makes of the answer to a question.

        Raises Busy if nobody answers or there is too much to do, and what the service raises.
        """
        self.refuse_if_away()
        question = pack(header, arrays)
        for pause_s in (*self.again_s, None):
            try:
                return self._post(question, self.answer_s, read)
            except SpaceMismatch:
                self.connect()  # raises, and is away, if that is so of the service as a whole
                raise
            except _Failed as problem:
                if pause_s is None or problem.late:
                    self.connect()  # raises if nobody is there
                    raise Busy(f"{self} failed: {problem}", seconds=1) from None
                self.retried += 1
                time.sleep(pause_s)
        raise AssertionError

    def _post(self, question: bytes, answer_s: float, read: Callable[[Header, Arrays], T]) -> T:
        """Asks once."""
        import httpx

        reply, until = bytearray(), self.clock() + answer_s
        waits = httpx.Timeout(answer_s, connect=CONNECT_S)
        try:
            with self._client.stream("POST", "/", content=question, timeout=waits) as response:
                for piece in response.iter_raw():
                    reply += piece
                    if len(reply) > MOST_REPLY_BYTES or self.clock() > until:
                        raise _Failed("its answer does not end", late=True)
        except httpx.HTTPError as problem:
            late = isinstance(problem, httpx.ReadTimeout)
            raise _Failed(str(problem) or type(problem).__name__, late=late) from None
        if response.status_code in (401, 403):
            raise BadSettings(f"{self} has another engine.secret than this bot")
        if response.status_code == 503:
            raise Busy(f"{self} has too much to do", seconds=2)
        if response.status_code != 200:
            raise _Failed(f"it answers {response.status_code}")
        try:
            header, arrays = unpack(bytes(reply))
            if "problem" in header:
                raise read_problem(header)
            return read(header, arrays)
        except Malformed as problem:
            raise _Failed(f"its answer can't be used: {problem}") from None
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as problem:
            raise _Failed("its answer can't be used") from problem

    def _compare(self, header: Header, _: Arrays) -> None:
        """Takes over what the service offers; raises if that is not what is wanted here."""
        for name, here in self.same.items():
            there = header["same"].get(name)
            if there != here:
                raise BadSettings(
                    f"{self} has {name} = {there!s:.80} and this bot {here}: "
                    "give both the same settings"
                )
        for name, facts in dict(header["models"]).items():
            known = self._models.get(name)
            if isinstance(facts, str) or name not in BACKBONES:
                self._models.setdefault(name, str(facts)[:SENTENCE_CHARS])
                continue
            sha256, precision = str(facts[0]), str(facts[-1])[:8]
            # The other end makes the views of a crop, and this one none.
            record, run = replace(BACKBONES[name], closer=None), functools.partial(self._run, name)
            network = Backbone(record, sha256, run, precision)
            offers = f"{self} offers {name}"
            if space_facts(network) != facts or not re.fullmatch("[0-9a-f]{64}", sha256):
                raise SpaceMismatch(f"{offers} by another recipe: install the same version there")
            if self.precision not in ("auto", "float", precision):
                here = self.precision
                raise SpaceMismatch(f"{offers} in {precision}, here models.precision is {here}")
            if isinstance(known, Backbone) and space_facts(known) != facts:
                mend = "start this program again if that is meant"
                raise SpaceMismatch(f"{offers} otherwise than before: {mend}")
            self._models[name] = known if isinstance(known, Backbone) else network
