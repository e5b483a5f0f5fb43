"""docs/deploy/: the files say nothing that the formats, or this program, don't know.

What takes minutes: `make image` makes what the image holds, `benchmarks/cluster.py` starts what
compose.cluster.yaml starts.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner
from dockerfile_parse import DockerfileParser
from talking import chatting

from bot.cli.main import lookalike
from bot.monitor import Monitor
from bot.settings import MonitorSettings, WebhookSettings, load_settings

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "docs" / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
UNIT = DEPLOY / "lookalike.service"
FILLED_IN = "filled-in-by-the-operator-0123456789"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def of_file(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def interpolated(value: object) -> str:
    """As compose fills in a variable that isn't set, or that has to be."""
    variable = re.compile(r"\$\{\w+(?::?(?P<kind>[-?])(?P<rest>[^}]*))?\}")
    default = lambda found: found["rest"] if found["kind"] == "-" else FILLED_IN  # noqa: E731
    return variable.sub(default, str(value))


def dockerfile() -> list[tuple[str, str]]:
    with (DEPLOY / "Dockerfile").open("rb") as file:
        return [
            (one["instruction"], one["value"]) for one in DockerfileParser(fileobj=file).structure
        ]


def listed(name: str) -> list[str]:
    """The command that an instruction of the Dockerfile holds."""
    (value,) = [value for one, value in dockerfile() if one == name]
    words: list[str] = json.loads(value[value.index("[") :])
    return words


def from_dockerfile() -> dict[str, str]:
    given = " ".join(value for name, value in dockerfile() if name == "ENV")
    return dict(re.findall(r"(LOOKALIKE_\w+)=(\S+)", given))


class Started(NamedTuple):
    """A program that a file starts: its words and its variables."""

    where: str
    words: list[str]
    environment: Mapping[str, str]


def started() -> Iterator[Started]:
    """Every start of this program that the files describe."""
    image, run = from_dockerfile(), listed("CMD")
    yield Started("Dockerfile", run, image)
    for path in COMPOSE:
        for name, service in of_file(path)["services"].items():
            words = [interpolated(word) for word in service.get("command") or run]
            if service.get("entrypoint") == ["sh", "-c"] and "lookalike" in words[0]:
                words = shlex.split(words[0].partition("lookalike ")[2])
            elif "entrypoint" in service:
                continue
            if service["image"].startswith("lookalike"):
                given = service.get("environment", {}).items()
                chosen = {variable: interpolated(value) for variable, value in given}
                yield Started(f"{path.name}: {name}", words, image | chosen)
    secrets: dict[str, str] = {}
    for resource in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")):
        secrets |= resource.get("stringData", {})
        if resource["kind"] == "Deployment":
            for container in resource["spec"]["template"]["spec"]["containers"]:
                chosen = {one["name"]: one["value"] for one in container["env"]}
                yield Started("kubernetes.yaml", container["args"], image | secrets | chosen)
    unit = UNIT.read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=\S+/bin/lookalike (.*)$", unit, re.MULTILINE)
    chosen = dict(re.findall(r"^Environment=(LOOKALIKE_\w+)=(.*)$", unit, re.MULTILINE))
    yield Started(UNIT.name, command.split(), chosen)


STARTED = list(started())


def test_compose_files_follow_the_specification() -> None:
    import check_jsonschema  # half a second, which no other test needs

    given = ["--builtin-schema", "vendor.compose-spec", *map(str, COMPOSE)]
    result = CliRunner().invoke(check_jsonschema.main, given)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("one", STARTED, ids=[one.where for one in STARTED])
def test_the_program_knows_what_it_is_started_with(
    one: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every word of the command, every variable and its value."""
    monkeypatch.chdir(tmp_path)
    for variable, value in one.environment.items():
        monkeypatch.setenv(variable, value)
    load_settings()
    with lookalike.make_context("lookalike", one.words) as context:
        name, command, rest = lookalike.resolve_command(context, one.words)
        assert command is not None
        command.make_context(name, rest, parent=context).close()


def test_nothing_of_ours_runs_with_more_rights_than_it_needs() -> None:
    for path in COMPOSE:
        for name, service in of_file(path)["services"].items():
            if service["image"].startswith("lookalike"):
                assert service["read_only"], (path, name)
                assert service["cap_drop"] == ["ALL"], (path, name)
                assert "no-new-privileges:true" in service["security_opt"], (path, name)
    assert ("USER", "10001:10001") in dockerfile()


def test_kubernetes_asks_where_the_bot_answers() -> None:
    resources = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    (pod,) = [one["spec"]["template"]["spec"] for one in resources if one["kind"] == "Deployment"]
    # Of a service called lookalike it would set LOOKALIKE_SERVICE_HOST, at which the bot stops.
    assert pod["enableServiceLinks"] is False
    (bot,) = pod["containers"]
    (port,) = [one["containerPort"] for one in bot["ports"] if one["name"] == "monitor"]
    (chosen,) = [one["value"] for one in bot["env"] if one["name"] == "LOOKALIKE_MONITOR__PORT"]
    assert str(port) == chosen
    probes = ["startupProbe", "livenessProbe", "readinessProbe"]
    paths = [bot[probe]["httpGet"]["path"] for probe in probes]
    assert paths == ["/healthz", "/healthz", "/readyz"]


async def test_the_health_check_asks_a_bot_that_runs_and_fails_without_one(own_home: Path) -> None:
    """The image's own command, with another port."""
    *_, code = listed("HEALTHCHECK")
    asked = from_dockerfile()["LOOKALIKE_MONITOR__PORT"]
    assert f":{asked}/healthz" in code
    async with chatting(own_home) as conversation:
        telegram: Any = SimpleNamespace(name="telegram", connected=False)
        monitor, settings = Monitor(conversation, [telegram]), MonitorSettings(port=free_port())
        command = [sys.executable, "-c", code.replace(asked, str(settings.port))]

        async def works() -> bool:
            process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
            return await process.wait() == 0

        assert not await works()
        async with monitor.served(settings):
            assert await works()


def test_the_image_holds_all_of_the_program_and_nothing_else() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copies = [value.split()[:-1] for name, value in dockerfile() if name == "COPY"]
    copied = {one for sources in copies if "--from=build" not in sources for one in sources}
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line[1:] for line in let_in if line.startswith("!")}
    assert copied > set(packages)
    assert all((REPOSITORY / one).exists() for one in copied)


def test_what_builds_the_program_is_locked_too() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    locked = (REPOSITORY / ".ci" / "build.lock").read_text(encoding="utf-8")
    for wanted in ["uv", *project["build-system"]["requires"]]:
        name = re.split(r"\W", wanted)[0]
        assert re.search(rf"^{name}==[\d.]+ \\\n +--hash=sha256:", locked, re.MULTILINE), name


def test_whatever_an_image_may_hold_is_locked() -> None:
    """Else it would be installed in any version, with any hash."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lock = (REPOSITORY / ".ci" / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    given = [value for name, value in dockerfile() if name == "ARG"]
    builds = [
        one["build"]
        for path in COMPOSE
        for one in of_file(path)["services"].values()
        if "build" in one
    ]
    given += [f"EXTRAS={build['args']['EXTRAS']}" for build in builds if "args" in build]
    chosen = {word for one in given for word in re.findall(r"EXTRAS=\"?([\w ]+)", one)}
    names = {"monitor", *(name for one in chosen for name in one.split())}
    assert len(names) > 4
    wanted = [one for name in names for one in extras[name] if not one.startswith("lookalike[")]
    for one in [*project["dependencies"], *wanted]:
        name = re.split(r"[^\w.-]", one)[0].lower().replace("_", "-").replace(".", "-")
        assert name in locked, one


def test_caddy_brings_updates_to_the_bots_that_are_there() -> None:
    caddyfile = DEPLOY / "Caddyfile"
    services = of_file(DEPLOY / "compose.cluster.yaml")["services"]
    told = caddyfile.read_text(encoding="utf-8")
    bots = [name for name in services if name.startswith("bot")]
    (behind,) = re.findall(r"reverse_proxy (.*) \{", told)
    assert behind.split() == [f"{bot}:{WebhookSettings().port}" for bot in bots]
    (path,) = re.findall(r"handle (\S+) \{", told)
    for bot in bots:
        chosen = services[bot]["environment"]
        assert chosen["LOOKALIKE_TELEGRAM__WEBHOOK__URL"].endswith(f"}}{path}")
    assert f"health_port {from_dockerfile()['LOOKALIKE_MONITOR__PORT']}" in told
    if not shutil.which("caddy"):
        pytest.skip("Caddy is not installed here: its file is not looked at by itself")
    check = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(caddyfile)]
    environment = os.environ | {"HOST_NAME": "bot.example.org"}
    checked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_systemd_understands_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed here")
    unit = tmp_path / UNIT.name
    program = re.compile(r"^ExecStart=\S+", re.MULTILINE)  # it isn't installed there here
    told = UNIT.read_text(encoding="utf-8")
    unit.write_text(program.sub(f"ExecStart={sys.executable}", told), encoding="utf-8")
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    checked = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "RestartPreventExitStatus=78\n" in told
    # Tenths of 0 (nothing) to 10 (everything).
    threshold = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit)]
    assert subprocess.run(threshold, capture_output=True, check=False).returncode == 0
