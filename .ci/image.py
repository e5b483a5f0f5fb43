"""Makes what docs/deploy/Dockerfile makes, without Docker, and tries it.

Its instructions are read from it and carried out in a folder, with a Python of its own in the place
of the image's; then the program is started as the image starts it, until the health check says that
it works, answers a sample photo, and is stopped. Printed are sizes and times.

    python .ci/image.py                           # as it is built without arguments
    python .ci/image.py --extras telegram         # the smallest that is a bot

In a system's root folder root may try it with nothing but that system, as another user, and with a
root that can't be written:

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm DIR
    python .ci/image.py --chroot DIR
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import NamedTuple

from dockerfile_parse import DockerfileParser

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = REPOSITORY / "docs" / "deploy" / "Dockerfile"
PLACES = ("/opt/lookalike", "/source", "/usr/local/bin/python", "/var/lib/lookalike")
# A bot whose platform can't be reached: it goes on trying, and everything else works.
TRIED = {
    "LOOKALIKE_TELEGRAM__TOKEN": "123456789:" + "A" * 35,
    "LOOKALIKE_TELEGRAM__BASE_URL": "http://127.0.0.1:9/bot",
    "LOOKALIKE_MODELS__FETCH": "false",
    "LOOKALIKE_GALLERY__STARTER": "false",
}
# How this machine reaches package registries.
INHERITED = re.compile(
    r"(?i)(https?|no)_proxy|SSL_CERT_(FILE|DIR)|PIP_(CERT|INDEX_URL)|UV_\w+INDEX"
)
HEALTHY_WITHIN_S, STOPPED_WITHIN_S = 120, 15


class Instruction(NamedTuple):
    """One of a Dockerfile; ``value`` on one line."""

    name: str
    value: str


def instructions(dockerfile: Path = DOCKERFILE) -> list[Instruction]:
    """All but comments."""
    with dockerfile.open("rb") as file:
        parsed = DockerfileParser(fileobj=file).structure
    found = [Instruction(one["instruction"], one["value"]) for one in parsed]
    return [one for one in found if one.name != "COMMENT"]


def pairs(value: str) -> Iterator[tuple[str, str]]:
    """The variables of an ENV or ARG with their values."""
    for word in shlex.split(value):
        name, _, given = word.partition("=")
        yield name, given


def listed(value: str) -> list[str]:
    """The command of a CMD, ENTRYPOINT or HEALTHCHECK in the form of a JSON list."""
    words: list[str] = json.loads(value[value.index("[") :])
    return words


class Image:
    """A folder in which a Dockerfile's instructions were carried out."""

    def __init__(self, root: Path, *, chroot: bool) -> None:
        self._root, self._chroot = root, chroot
        self.environment: dict[str, str] = {}
        self.commands: dict[str, list[str]] = {}
        self._user, self._folder = "", "/"
        for place in PLACES:  # of an earlier run
            shutil.rmtree(root / place[1:], ignore_errors=True)
        system = ["chroot", root, "python3"] if chroot else [sys.executable]
        if chroot:
            subprocess.run(["chroot", root, "userdel", "lookalike"], check=False)
        python = [*system, "-m", "venv", "/usr/local" if chroot else root / "usr/local"]
        subprocess.run(python, check=True)

    def _placed(self, text: str) -> str:
        """With the places of the image as this system knows them."""
        if self._chroot:
            return text
        return re.sub("|".join(PLACES), lambda place: f"{self._root}{place[0]}", text)

    def build(self, extras: str | None) -> None:
        """Carries the instructions out; raises CalledProcessError where a command fails."""
        for name, value in instructions():
            if name == "FROM":
                self._folder = "/"
                known = os.environ.items()
                self.environment = {key: of for key, of in known if INHERITED.fullmatch(key)} | {
                    "PATH": self._root_path("/usr/local/bin")
                    + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME": "/root" if self._chroot else str(self._root),
                }
            elif name in {"ENV", "ARG"}:
                self.environment |= {
                    key: self._placed(Template(given).safe_substitute(self.environment))
                    for key, given in pairs(value)
                }
                if extras is not None and "EXTRAS" in self.environment:
                    self.environment["EXTRAS"] = extras
            elif name == "WORKDIR":
                self._folder = value
                (self._root / value[1:]).mkdir(parents=True, exist_ok=True)
            elif name == "COPY" and "--from=" not in value:
                self._copy(*value.split())
            elif name == "RUN" and (self._chroot or not value.startswith("useradd")):
                began = time.monotonic()
                subprocess.run(self._called(["/bin/sh", "-ec", self._placed(value)]), check=True)
                print(f"{time.monotonic() - began:6.0f} s  {value[:80]}", flush=True)
            elif name == "USER":
                self._user = value
            elif name in {"CMD", "ENTRYPOINT", "HEALTHCHECK"}:
                self.commands[name] = listed(value)

    def _root_path(self, path: str) -> str:
        return path if self._chroot else f"{self._root}{path}"

    def _copy(self, *given: str) -> None:
        *sources, target = given
        folder = self._root / self._folder[1:] / target
        for source in (REPOSITORY / one for one in sources):
            if source.is_dir():
                cleaned = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder, ignore=cleaned, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder)

    def _called(self, command: list[str], *, user: str = "", readonly: bool = False) -> list[str]:
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        if not self._chroot:
            folder = self._root / self._folder[1:]
            return ["env", "-i", "-C", str(folder), *environment, *command]
        root, home = shlex.quote(str(self._root)), "/var/lib/lookalike"
        there = ["env", "-i", "-C", self._folder, *environment, *command]
        mounts = f"mount --bind {root} {root}; mount -t proc proc {root}/proc; "
        mounts += f"mount --bind /dev {root}/dev; "
        if readonly:
            mounts += (
                f"mount --bind {root}{home} {root}{home}; mount -o remount,ro,bind {root}; "
                f"mount -t tmpfs tmpfs {root}/tmp; "
            )
        into = f"exec chroot {'--userspec=' + user if user else ''} {root} {shlex.join(there)}"
        return ["unshare", "--mount", "sh", "-ec", mounts + into]

    def started(
        self, command: list[str], *, quiet: bool = False, **more: str
    ) -> subprocess.Popen[bytes]:
        """A command in the finished image, as its user, with a root that can't be written."""
        kept, self.environment = self.environment, self.environment | more
        try:
            called = self._called(command, user=self._user, readonly=True)
            return subprocess.Popen(called, stderr=subprocess.DEVNULL if quiet else None)
        finally:
            self.environment = kept

    def megabytes(self, folder: str = "/opt/lookalike") -> float:
        """What a folder takes on disk."""
        sizes = (path.lstat().st_blocks * 512 for path in (self._root / folder[1:]).rglob("*"))
        return sum(sizes) / 1e6


def tried(image: Image) -> None:
    """Starts it, waits until it is healthy, has a photo answered, and stops it."""
    entry, begun = image.commands["ENTRYPOINT"], time.monotonic()
    bot = image.started([*entry, *image.commands["CMD"]], **TRIED)
    try:
        while image.started(image.commands["HEALTHCHECK"], quiet=True).wait():
            if bot.poll() is not None or time.monotonic() > begun + HEALTHY_WITHIN_S:
                raise SystemExit(f"it is not healthy ({bot.poll()})")
            time.sleep(0.5)
        print(f"healthy after {time.monotonic() - begun:.1f} s")
        if image.started([*entry, "demo", "--out", "answer.jpg"]).wait():
            raise SystemExit("it answers no photo")
    finally:
        begun = time.monotonic()
        if bot.poll() is None:
            bot.terminate()
        code = bot.wait(STOPPED_WITHIN_S)
    print(f"stopped in {time.monotonic() - begun:.1f} s with exit code {code}")
    if code:
        raise SystemExit(1)


def main() -> None:
    """Builds and tries it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", help="instead of the Dockerfile's own")
    parser.add_argument("--chroot", type=Path, help="root folder of a system with Python")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookalike-image-") as folder:
        root = (arguments.chroot or Path(folder)).resolve()
        image = Image(root, chroot=arguments.chroot is not None)
        image.build(arguments.extras)
        print(f"/opt/lookalike: {image.megabytes():.0f} MB beside the base image's")
        tried(image)


if __name__ == "__main__":
    os.umask(0o022)
    main()
