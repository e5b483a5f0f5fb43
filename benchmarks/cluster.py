"""Starts what docs/deploy/compose.cluster.yaml starts, without Docker, and has photos answered.

Commands, variables, health checks, mounts and their order are read from the file. A container is a
process with namespaces of its own (network, processes, mounts), an address and a name on a bridge,
and a root that can't be written where the file says so: Telegram's updates come in by Caddy and its
certificate, and all find each other by the names in the file. In Telegram's place is the tests' Bot
API server. Whether anything is missing in the images is tried by `.ci/image.py`.

    python benchmarks/cluster.py [--photos 40] [--workers 2] [--record]

Takes Linux, root, Caddy and a server of Valkey or Redis; PostgreSQL comes with pgserver.
Printed are what people wait, and the processor time and memory of each container for a photo.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import yaml
from aiohttp.abc import AbstractResolver, ResolveResult
from figures import SERVICE_TIMES, record
from service_times import descendants, processor_ms
from telegram_latency import BotApi, Crowd, quantile

T = TypeVar("T")

DEPLOY: Final = Path(__file__).parents[1] / "docs" / "deploy"
FILE: Final = DEPLOY / "compose.cluster.yaml"
HOST: Final = "bot.localhost"  # for such a name Caddy makes a certificate of its own
BRIDGE, SUBNET = "lookalike0", "10.87.13"
HEALTHY_S, IDLE_S = 400.0, 5.0
# What the operator writes into .env.
SECRETS: Final = (
    "DATABASE_KEY",
    "WEBHOOK_SECRET",
    "ENGINE_SECRET",
    "RAY_AUTH_TOKEN",
    "POSTGRES_PASSWORD",
    "VALKEY_PASSWORD",
)
# What the images have beside the file: their user's command and variables.
IMAGES: Final[dict[str, dict[str, Any]]] = {
    "lookalike": {
        "entrypoint": ["lookalike"],
        "environment": {
            "LOOKALIKE_HOME": "/var/lib/lookalike",
            "LOOKALIKE_MONITOR__PORT": "9464",
            "HOME": "/var/lib/lookalike",
        },
    },
    "caddy": {
        "command": ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"],
        "environment": {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/config", "HOME": "/config"},
    },
    "valkey/valkey": {},
    "pgvector/pgvector": {},
}


class Container:
    """A service of the file, once started."""

    def __init__(self, name: str, address: str, command: list[str], log: Path) -> None:
        self.name, self.address = name, address
        self._command, self._log = command, log
        self.start()

    def start(self) -> None:
        """Starts it, again if need be."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def pids(self) -> list[int]:
        """Its processes, as this system numbers them."""
        return descendants(self.process.pid)

    def processor_ms(self) -> float:
        """What its processes have used."""
        return processor_ms(self.pids())

    def resident_mb(self) -> float:
        """What they keep in memory; what they share is counted in part (PSS)."""
        kilobytes = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                kilobytes += int(re.findall(r"^Pss:\s+(\d+)", lines, re.MULTILINE)[0])
        return kilobytes / 1024


class Compose:
    """The file's services as processes."""

    def __init__(
        self, folder: Path, variables: Mapping[str, str], scale: Mapping[str, int]
    ) -> None:
        self._folder = folder
        text = FILE.read_text(encoding="utf-8")
        filled = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: variables[found[1]], text)
        self.file: dict[str, Any] = yaml.safe_load(filled)
        self.containers: dict[str, Container] = {}
        self._made: list[Path] = []  # where containers mount something, on this system
        self._addresses: dict[str, str] = {}
        for name, service in self.file["services"].items():
            count = scale.get(name, service.get("deploy", {}).get("replicas", 1))
            for number in range(count):
                host = name if count == 1 else f"{name}.{number + 1}"
                self._addresses[host] = f"{SUBNET}.{len(self._addresses) + 2}"
        self._hosts = folder / "hosts"
        lines = [f"{address} {host}" for host, address in self._addresses.items()]
        self._hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]), encoding="utf-8")
        (folder / "bin").mkdir()
        for theirs, ours in {"valkey-server": "redis-server", "valkey-cli": "redis-cli"}.items():
            (folder / "bin" / theirs).symlink_to(shutil.which(theirs) or str(shutil.which(ours)))
        import pgserver

        postgres = Path(pgserver.__file__).parent / "pginstall" / "bin"
        places = [folder / "bin", Path(sys.executable).parent, postgres, *os.get_exec_path()]
        self._path = os.pathsep.join(map(str, places))
        self._postgres = postgres

    def start_all(self, extra: Mapping[str, Mapping[str, str]]) -> None:
        """Starts everything in the order of ``depends_on``; returns when all are healthy.

        ``extra`` are variables that services get besides those of the file.
        """
        waiting = dict(self.file["services"])
        while waiting:
            for name, service in list(waiting.items()):
                if not set(service.get("depends_on", ())) & waiting.keys():
                    self._start(name, service, extra.get(name, {}))
                    del waiting[name]
            for name, service in self.file["services"].items():
                if name not in waiting and not service.get("ready"):
                    self._wait_until_healthy(name, service)
                    service["ready"] = True

    def _start(self, name: str, service: dict[str, Any], extra: Mapping[str, str]) -> None:
        image = IMAGES[service["image"].partition(":")[0]]
        entry = service.get("entrypoint", image.get("entrypoint", []))
        command = [*entry, *service.get("command", image.get("command", []))]
        environment = {
            "PATH": self._path,
            "LANG": "C.UTF-8",
            **image.get("environment", {}),
            **service.get("environment", {}),
            **extra,
        }
        if name == "postgres":
            command = self._postgres_command(command, environment)
        for host in [one for one in self._addresses if one.partition(".")[0] == name]:
            self.containers[host] = self._started(host, service, command, environment)

    def _started(
        self, host: str, service: dict[str, Any], command: list[str], environment: Mapping[str, str]
    ) -> Container:
        space = f"lk-{host}"
        address, number = self._addresses[host], self._addresses[host].rpartition(".")[2]
        outside, inside = f"lkv{number}", f"lkw{number}"
        for line in (
            f"netns add {space}",
            f"link add {outside} type veth peer name {inside}",
            f"link set {outside} master {BRIDGE} up",
            f"link set {inside} netns {space}",
            f"-n {space} link set {inside} name eth0",
            f"-n {space} addr add {address}/24 dev eth0",
            f"-n {space} link set eth0 up",
            f"-n {space} link set lo up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        mounts = [f"mount --bind {self._hosts} /etc/hosts", f"hostname {host}"]
        own = self._folder / host
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            place = DEPLOY / source if source.startswith(".") else self._folder / "volumes" / source
            self._mount(mounts, place, target)
        for target in service.get("tmpfs", ()):
            self._mount(mounts, own / target[1:], target)
        # Where Ray has its sockets and logs, and what it keeps in memory.
        mounts.append(f"mount -t tmpfs -o size={service.get('shm_size', '64m')} tmpfs /dev/shm")
        if service.get("read_only"):
            mounts.append("mount -o remount,ro,bind /")
        variables = [f"{key}={value}" for key, value in environment.items()]
        script = "; ".join(mounts) + "; exec " + shlex.join(["env", "-i", *variables, *command])
        enter = ["ip", "netns", "exec", space, "unshare", "--mount", "--uts", "--ipc", "--pid"]
        enter += ["--fork", "--kill-child", "--mount-proc", "sh", "-ec", script]
        return Container(host, address, enter, self._folder / f"{host}.log")

    def _mount(self, mounts: list[str], source: Path, target: str) -> None:
        """Mounts a file or folder there; the place is made for the time being if it is missing."""
        if not source.exists():
            source.mkdir(parents=True)
            source.chmod(0o1777)
        place = Path(target)
        missing = [one for one in (place, *place.parents) if not one.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            self._made.insert(0, folder)
        mounts.append(f"mount --bind {shlex.quote(str(source))} {target}")

    def _postgres_command(self, command: list[str], environment: dict[str, str]) -> list[str]:
        """What the image's entrypoint does: a cluster, a database, what ``configs`` say."""
        data = "/var/lib/postgresql/data"
        place = self._folder / "volumes" / "postgres"
        place.mkdir(parents=True)
        user, password = environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"]
        (self._folder / "password").write_text(password, encoding="utf-8")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for path in (place, self._folder / "password"):
            os.chown(path, 65534, 65534)
        made = place / "pgdata"
        init = [*nobody, str(self._postgres / "initdb"), "-D", str(made), "-U", user, "--no-sync"]
        init += [
            "--auth=scram-sha-256",
            "--auth-local=trust",
            f"--pwfile={self._folder / 'password'}",
        ]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
        with (made / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write("host all all all scram-sha-256\n")
        content = self.file["configs"]["vector.sql"]["content"]
        single = [*nobody, str(self._postgres / "postgres"), "--single", "-D", str(made)]
        for database, statement in (("postgres", f"CREATE DATABASE {user}"), (user, content)):
            asked = f"{statement.rstrip(';')}\n".encode()
            subprocess.run([*single, database], input=asked, check=True, stdout=subprocess.DEVNULL)
        settings = ["listen_addresses=*", f"unix_socket_directories={data}"]
        chosen = (word for setting in settings for word in ("-c", setting))
        return [*nobody, *command, "-D", f"{data}/pgdata", *chosen]

    def _wait_until_healthy(self, name: str, service: dict[str, Any]) -> None:
        check = service.get("healthcheck", {}).get("test", [])[1:]
        if not check and service["image"].startswith("lookalike") and "healthcheck" not in service:
            code = "from urllib.request import urlopen; urlopen('http://127.0.0.1:9464/healthz')"
            check = ["python", "-c", code]
        began = time.monotonic()
        if "pg_isready" in check:
            check = [*check, "--host=127.0.0.1"]
        for container in [
            one for host, one in self.containers.items() if host.partition(".")[0] == name
        ]:
            variables = service.get("environment", {}) | {"PATH": self._path}
            asked = [
                "ip",
                "netns",
                "exec",
                f"lk-{container.name}",
                "env",
                *(f"{k}={v}" for k, v in variables.items()),
                *check,
            ]
            while check and subprocess.run(asked, capture_output=True, check=False).returncode:
                self.restart_ended()
                if time.monotonic() > began + HEALTHY_S:
                    log = (self._folder / f"{container.name}.log").read_text(errors="replace")
                    raise SystemExit(f"{container.name} is not healthy:\n{log[-3000:]}")
                time.sleep(0.5)
            print(
                f"{container.name:14} healthy after {time.monotonic() - began:5.1f} s", flush=True
            )

    def restart_ended(self) -> None:
        """What ``restart: unless-stopped`` does; Ray gives up where a start takes over 30 s."""
        for container in self.containers.values():
            if container.process.poll() is not None:
                print(f"{container.name} ended, and is started again", flush=True)
                container.start()

    async def used(self, work: Awaitable[T]) -> tuple[dict[str, float], T]:
        """The milliseconds that each container uses meanwhile, and what comes of the work."""
        before = {host: one.processor_ms() for host, one in self.containers.items()}
        done = await work
        now = self.containers.items()
        return {host: one.processor_ms() - before[host] for host, one in now}, done

    def remembered_kb(self) -> float:
        """What Valkey holds."""
        variables = self.file["services"]["valkey"]["environment"] | {"PATH": self._path}
        asked = [
            "ip",
            "netns",
            "exec",
            "lk-valkey",
            "env",
            *(f"{k}={v}" for k, v in variables.items()),
        ]
        asked += ["valkey-cli", "info", "memory"]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        return int(re.findall(r"^used_memory_dataset:(\d+)", told, re.MULTILINE)[0]) / 1000

    def log(self, host: str) -> str:
        """What a container has said."""
        return (self._folder / f"{host}.log").read_text(encoding="utf-8", errors="replace")

    def stop_all(self) -> None:
        """Ends what runs, and leaves this system as it was."""
        for host in list(self.containers):
            self.stop(host)
        for folder in self._made:
            folder.rmdir()

    def stop(self, host: str) -> None:
        """Ends a container as `docker stop` does."""
        container = self.containers.pop(host)
        for pid in container.pids()[:1]:
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            container.process.wait(15)
        container.process.kill()
        container.process.wait()


@contextlib.contextmanager
def bridge() -> Iterator[None]:
    """A network for containers, gone with the block."""
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE], check=True)
        subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)
        yield
    finally:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        for space in re.findall(r"^(lk-\S+)", listed.stdout, re.MULTILINE):
            subprocess.run(["ip", "netns", "delete", space], check=False)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False)


class Names(AbstractResolver):
    """Telegram finds the bot's host."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        """Whatever the name is."""
        known = {"hostname": host, "host": self._address, "port": port}
        return [ResolveResult(**known, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


@contextlib.asynccontextmanager
async def reachable(api: BotApi) -> AsyncIterator[str]:
    """The tests' server, which listens on this machine alone, at the bridge's address."""
    port = int(api.url.rpartition(":")[2])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    async with await asyncio.start_server(met, f"{SUBNET}.1", 0) as server:
        yield f"http://{SUBNET}.1:{server.sockets[0].getsockname()[1]}"


async def tried(folder: Path, photos: int, scale: Mapping[str, int]) -> dict[str, Any]:
    """Starts everything, asks, kills a bot, asks again; the figures."""
    async with BotApi() as api, reachable(api) as url:
        variables = {name: os.urandom(16).hex() for name in SECRETS}
        variables |= {"HOST_NAME": HOST, "LOOKALIKE_TELEGRAM__TOKEN": api.token}
        compose = Compose(folder, variables, scale)
        bot = {
            "LOOKALIKE_TELEGRAM__BASE_URL": f"{url}/bot",
            "LOOKALIKE_TELEGRAM__BASE_FILE_URL": f"{url}/file/bot",
            "LOOKALIKE_GALLERY__STARTER": "false",
            "LOOKALIKE_DEFAULT_MODEL": "dlib",
            "LOOKALIKE_QUEUE__PHOTOS_PER_MINUTE": "100000",
        }
        fast = {"LOOKALIKE_MODELS__CONFIGURED": '["dlib"]'}
        try:
            await asyncio.to_thread(
                compose.start_all,
                {"bot-1": bot | fast, "bot-2": bot | fast, "engine": fast, "ray-worker": fast},
            )
            caddy = aiohttp.TCPConnector(
                resolver=Names(compose.containers["caddy"].address), ssl=False
            )
            async with aiohttp.ClientSession(connector=caddy) as poster:
                await api._poster.close()  # noqa: SLF001 - it knows no other way to Caddy
                api._poster = poster  # noqa: SLF001
                return await measured(compose, api, photos)
        finally:
            compose.stop_all()


async def _parts(client: aiohttp.ClientSession, url: str) -> dict[str, bool]:
    async with client.get(url) as response:
        parts: dict[str, bool] = await response.json()
        return parts


async def one_after_the_other(crowd: Crowd, photos: int) -> list[float]:
    """What so many people wait."""
    return [await crowd.wait_ms(person % 4) for person in range(photos)]


async def measured(compose: Compose, api: BotApi, photos: int) -> dict[str, Any]:
    """What people wait, and what it costs; then with one bot fewer."""
    async with asyncio.timeout(HEALTHY_S), aiohttp.ClientSession() as client:
        compose.restart_ended()
        for host in ("bot-1", "bot-2"):
            ready = f"http://{compose.containers[host].address}:9464/readyz"
            while not (parts := await _parts(client, ready))["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            print(f"{host} is ready: {parts}", flush=True)
    crowd = Crowd(api)
    for person in range(6):
        await crowd.wait_ms(person)
    kept_kb, (idle_ms, _) = compose.remembered_kb(), await compose.used(asyncio.sleep(IDLE_S))
    used_ms, alone = await compose.used(one_after_the_other(crowd, photos))
    kept_kb = (compose.remembered_kb() - kept_kb) / photos
    seconds = sum(alone) / 1000
    began = time.perf_counter()
    together = await asyncio.gather(*(crowd.wait_ms(person) for person in range(photos)))
    together_s = time.perf_counter() - began
    resident_mb = {host: one.resident_mb() for host, one in compose.containers.items()}
    answers = {host: compose.log(host).count("event=answer") for host in ("bot-1", "bot-2")}
    print(f"answered by {answers}")
    if not all(answers.values()):
        raise SystemExit("one of the bots answers nothing")
    compose.stop("bot-1")
    print(f"one bot stopped; the other answers after {await crowd.wait_ms(0):.0f} ms")
    figures = {
        "one_after_the_other_median_ms": statistics.median(alone),
        "together_95_ms": quantile(together, 0.95),
        "answers_per_s": photos / together_s,
        "photos": photos,
        "remembered_kb": kept_kb,
        "services": {
            host: {
                "processor_ms": max(0.0, used_ms[host] - idle_ms[host] * seconds / IDLE_S) / photos,
                "idle_cores": idle_ms[host] / 1000 / IDLE_S,
                "resident_mb": resident_mb[host],
            }
            for host in used_ms
        },
    }
    print(figures)
    return figures


def main() -> None:
    """Tries it, and keeps the figures if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="of Ray")
    parser.add_argument("--keep-logs", type=Path, help="folder for what the containers said")
    parser.add_argument("--record", action="store_true", help="keep the figures for the docs")
    arguments = parser.parse_args()
    missing = [name for name in ("ip", "unshare", "setpriv", "caddy") if not shutil.which(name)]
    if not (shutil.which("valkey-server") or shutil.which("redis-server")):
        missing.append("valkey-server or redis-server")
    if sys.platform != "linux" or os.geteuid() or missing:
        print(f"not tried: it takes Linux and root{', and ' * bool(missing)}{', '.join(missing)}")
        return
    with tempfile.TemporaryDirectory(prefix="lk-", dir="/var/tmp") as name, bridge():
        Path(name).chmod(0o755)
        try:
            figures = asyncio.run(
                tried(Path(name), arguments.photos, {"ray-worker": arguments.workers})
            )
        finally:
            if arguments.keep_logs:
                arguments.keep_logs.mkdir(exist_ok=True)
                for log in Path(name).glob("*.log"):
                    shutil.copy(log, arguments.keep_logs)
    if arguments.record:
        record("cluster", figures, file=SERVICE_TIMES)


if __name__ == "__main__":
    main()
