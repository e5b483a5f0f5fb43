"""What so many photos a minute need, by a simulation of bots, engine replicas and their limits.

Discrete events (SimPy): people come at random, a photo passes through the stages of
benchmarks/service_times.py, each with the processor time of a measured photo, on cores, event loops
and locks as the program has them; platforms let so many messages pass a second. The same simulation
is first asked about the crowds that were measured, so that one sees how far it is to be trusted.

    python benchmarks/scaling.py            # simulates, and prints
    python benchmarks/scaling.py --record   # keeps it; writes tables and chart of docs/SCALING.md
    python benchmarks/scaling.py --page     # writes them from what was kept
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import simpy
from figures import SERVICE_TIMES, record, recorded
from page_tables import anything
from scaling_page import CHART, PAGE, chart, written

Event = Generator[simpy.Event, Any, None]
Ms = Mapping[str, Sequence[float]]

SEED: Final = 20_261_128
SLICE_S, LONG_SLICE_S = 0.004, 0.02  # a thread's turn on a core; where many are simulated
BUSY_SHARE: Final = 0.6  # of a core, where a plan has room for the rush of a minute
# As bot/recognizer.py has them, with the settings' defaults.
LENGTH, DECODED_PER_WORKER, DEADLINE_S = 64, 2, 30.0
# Telegram's FAQ on bots: about 30 messages a second of one bot; the SDK's limiter keeps to it.
TELEGRAM_PER_S: Final = 30.0
TOKEN_SHARE: Final = 0.8  # of what a token may send, where a plan has room
RATES: Final = (10, 1_000, 100_000)
HERE, ELSEWHERE = (
    ("talk", "ask", "decode", "search", "draw", "share"),
    ("decode", "detect", "embed", "serve"),
)
ALONE: Final = ("talk", "decode", "detect", "embed", "search", "draw")
ONE_RATES: Final = (60, 300, 600, 800, 900, 1_000, 1_100, 1_200, 1_300, 1_400, 1_600, 2_000)
CORES_PER_MACHINE: Final = 2  # where it was measured


@dataclass
class Outcome:
    """What came of the photos of a run."""

    seconds: float
    waited_s: list[float] = field(default_factory=list)
    busy: int = 0  # told to come back
    late: int = 0  # longer than the deadline
    used: dict[str, float] = field(default_factory=dict)  # share of what there is

    def figures(self) -> dict[str, float]:
        """Milliseconds, answers a second, and the share that got no answer."""
        asked = len(self.waited_s) + self.busy + self.late
        ms = [1000 * one for one in self.waited_s] or [math.nan]
        return {
            "answers_per_s": len(self.waited_s) / self.seconds,
            "median_ms": statistics.median(ms),
            "within_95_ms": float(np.quantile(ms, 0.95)),
            "within_99_ms": float(np.quantile(ms, 0.99)),
            "unanswered": (self.busy + self.late) / max(1, asked),
            **{f"{name}_busy": share for name, share in self.used.items()},
        }


class Cores:
    """Some cores that threads take turns on."""

    def __init__(self, world: simpy.Environment, count: int, slice_s: float = SLICE_S) -> None:
        self._world, self.count, self.used_s, self._slice_s = world, count, 0.0, slice_s
        self._free = simpy.Resource(world, count)

    def work(self, ms: float) -> Event:
        """So much processor time, in turns."""
        left_s = ms / 1000
        while left_s > 0:
            turn_s = min(self._slice_s, left_s)
            with self._free.request() as core:
                yield core
                yield self._world.timeout(turn_s)
            left_s -= turn_s
            self.used_s += turn_s

    @property
    def waiting(self) -> int:
        """Threads that want a core or have one."""
        return len(self._free.queue) + self._free.count


class Pace:
    """Lets so many through a second, in turn; a second's worth may go at once (a leaky bucket)."""

    def __init__(self, world: simpy.Environment, per_s: float) -> None:
        self._world, self._per_s, self._level, self._at_s = world, per_s, 0.0, 0.0

    def passed(self) -> Event:
        """Waits for its turn."""
        now_s = self._world.now
        self._level = max(0.0, self._level - (now_s - self._at_s) * self._per_s) + 1
        self._at_s = now_s
        if self._level > self._per_s:
            yield self._world.timeout((self._level - self._per_s) / self._per_s)


@dataclass
class Replica:
    """A copy of the engine elsewhere."""

    cores: Cores
    inside: int = 0


class Bot:
    """One process: an event loop, threads, and the engine in it or elsewhere."""

    def __init__(
        self,
        world: simpy.Environment,
        draw: Callable[[str], float],
        cores: Cores,
        *,
        replicas: Sequence[Replica] = (),
        database: Cores | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._world, self._draw, self.cores, self._replicas = world, draw, cores, replicas
        self._database, self._pace, self.inside = database, pace, 0
        self._loop = simpy.Resource(world, 1)
        self._detecting = simpy.Resource(world, cores.count)
        self._decoded = simpy.Resource(world, DECODED_PER_WORKER * cores.count)
        self._embedding = simpy.Resource(world, 1)
        self._threads = simpy.Resource(world, cores.count + 1)

    def _alone(self, place: simpy.Resource, ms: float) -> Event:
        with place.request() as turn:
            yield turn
            yield from self.cores.work(ms)

    def answer(self, outcome: Outcome, began_s: float) -> Event:
        """One photo, from the update to the card's arrival."""
        if self.inside >= LENGTH:
            outcome.busy += 1
            return
        self.inside += 1
        talk_ms = self._draw("talk")
        yield from self._alone(self._loop, talk_ms / 2)
        if self._replicas:
            yield from self._looked_at_elsewhere()
        else:
            with self._decoded.request() as kept:
                yield kept
                with self._detecting.request() as turn:
                    yield turn
                    yield from self.cores.work(self._draw("decode") + self._draw("detect"))
                yield from self._alone(self._embedding, self._draw("embed"))
        yield from self._alone(self._threads, self._draw("search"))
        if self._database is not None:
            yield from self._database.work(self._draw("database"))
            yield from self.cores.work(self._draw("share"))
        yield from self._alone(self._threads, self._draw("draw"))
        yield from self._alone(self._loop, talk_ms / 2)
        self.inside -= 1
        if self._pace is not None:
            yield from self._pace.passed()
        waited_s = self._world.now - began_s
        if waited_s > DEADLINE_S:
            outcome.late += 1
        else:
            outcome.waited_s.append(waited_s)

    def _looked_at_elsewhere(self) -> Event:
        """The bot decodes the photo, too, for the card."""
        yield from self.cores.work(self._draw("ask") + self._draw("decode"))
        yield from looked_at(self._replicas, self._draw)


def looked_at(replicas: Sequence[Replica], draw: Callable[[str], float]) -> Event:
    """By the replica with less to do of two, which is Ray Serve's choice."""
    replica = min(random.sample(replicas, min(2, len(replicas))), key=lambda one: one.inside)
    replica.inside += 1
    yield from replica.cores.work(sum(map(draw, ELSEWHERE)))
    replica.inside -= 1


def drawing(ms: Ms) -> Callable[[str], float]:
    """Draws milliseconds of a stage among those measured; 0 of a stage nobody measured."""
    return lambda stage: random.choice(ms[stage]) if ms.get(stage) else 0.0


def crowd(ms: Ms, people: int, cores: int, driver_ms: float, seconds: float = 20.0) -> Outcome:
    """So many people who send the next photo when the last is answered, to one process.

    On the same cores as the server they talk to, as in the measurement.
    """
    random.seed(SEED)
    world, outcome = simpy.Environment(), Outcome(seconds)
    shared = Cores(world, cores)
    bot, driver = Bot(world, drawing(ms), shared), simpy.Resource(world, 1)

    def drive() -> Event:
        with driver.request() as turn:
            yield turn
            yield from shared.work(driver_ms / 2)

    def person() -> Event:
        while world.now < seconds:
            began_s = world.now
            yield from drive()
            answered = Outcome(seconds)
            yield from bot.answer(answered, world.now)
            yield from drive()
            if answered.busy:
                outcome.busy += 1
                yield world.timeout(1.0)
            else:
                outcome.waited_s.append(world.now - began_s)

    for _ in range(people):
        world.process(person())
    world.run()
    outcome.seconds = max(seconds, world.now)
    return outcome


def clients(ms: Ms, run: Mapping[str, float], seconds: float = 20.0) -> Outcome:
    """Clients of replicas that have a core each, on a machine of two cores."""
    random.seed(SEED)
    inside = sum(statistics.mean(ms[stage]) for stage in ("decode", "detect", "embed"))
    serve = [max(0.0, run["engine_ms"] - inside)]
    world, outcome, draw = simpy.Environment(), Outcome(seconds), drawing({**ms, "serve": serve})
    cores = [Cores(world, 1) for _ in range(CORES_PER_MACHINE)]
    replicas = [Replica(cores[number]) for number in range(int(run["replicas"]))]

    def client() -> Event:
        while world.now < seconds:
            began_s = world.now
            other = min(cores, key=lambda one: one.waiting)
            yield from other.work(run["client_ms"])
            yield from looked_at(replicas, draw)
            outcome.waited_s.append(world.now - began_s)

    for _ in range(int(run["clients"])):
        world.process(client())
    world.run()
    outcome.seconds = world.now
    return outcome


@dataclass(frozen=True)
class Plan:
    """How much of everything; ``replicas`` 0 means that each bot has the engine in it."""

    tokens: int
    bots: int  # in all, spread over the tokens
    bot_cores: int
    replicas: int  # of one core each
    database_cores: int

    def cores(self) -> int:
        """In all."""
        return self.bots * self.bot_cores + self.replicas + self.database_cores


def planned(per_minute: float, ms: Ms) -> Plan:
    """What so many photos a minute need, from mean times and the share of a core to be used."""
    per_s = per_minute / 60

    def cores(stages: Iterable[str]) -> int:
        mean_ms = sum(statistics.mean(ms[stage]) for stage in stages if ms.get(stage))
        return max(1, math.ceil(per_s * mean_ms / 1000 / BUSY_SHARE))

    tokens = max(1, math.ceil(per_s / (TELEGRAM_PER_S * TOKEN_SHARE)))
    if cores(ALONE) <= CORES_PER_MACHINE:
        return Plan(tokens, 1, CORES_PER_MACHINE, 0, 0)
    bots = tokens * max(2, math.ceil(cores(HERE) / tokens))
    return Plan(tokens, bots, 1, max(2, cores(ELSEWHERE)), cores(["database"]))


def flood(plan: Plan, ms: Ms, per_minute: float, seconds: float) -> Outcome:
    """Photos that come at random, so many a minute on average, for some seconds."""
    random.seed(SEED)
    world, outcome, draw = simpy.Environment(), Outcome(seconds), drawing(ms)
    turn_s = LONG_SLICE_S if plan.bots > CORES_PER_MACHINE else SLICE_S
    replicas = [Replica(Cores(world, 1, turn_s)) for _ in range(plan.replicas)]
    database = Cores(world, plan.database_cores, turn_s) if plan.database_cores else None
    paces = [Pace(world, TELEGRAM_PER_S) for _ in range(plan.tokens)]
    more: dict[str, Any] = {"replicas": replicas, "database": database}
    bots = [
        Bot(world, draw, Cores(world, plan.bot_cores, turn_s), pace=paces[at % plan.tokens], **more)
        for at in range(plan.bots)
    ]
    groups = [bots[token :: plan.tokens] for token in range(min(plan.tokens, plan.bots))]

    def people() -> Event:
        while world.now < seconds:
            yield world.timeout(random.expovariate(per_minute / 60))
            bot = min(random.choice(groups), key=lambda one: one.inside)
            world.process(bot.answer(outcome, world.now))

    world.process(people())
    world.run()
    outcome.used["bots"] = busy([bot.cores for bot in bots], seconds)
    if replicas:
        outcome.used["replicas"] = busy([one.cores for one in replicas], seconds)
    if database is not None:
        outcome.used["database"] = busy([database], seconds)
    return outcome


def busy(cores: Sequence[Cores], seconds: float) -> float:
    """The share of so many seconds that they worked."""
    return sum(one.used_s for one in cores) / (seconds * sum(one.count for one in cores))


def stage_ms(sections: Mapping[str, Any]) -> dict[str, list[float]]:
    """What is simulated with: of bots alone, and what is added where the rest is elsewhere.

    ``serve`` is what the engine takes beside its stages, ``ask`` a bot to ask it; ``share`` what a
    bot of the cluster takes beside all its stages, for PostgreSQL and Valkey.
    """
    measured, cluster = sections["photo"]["figures"], sections["cluster"]["figures"]["services"]
    ms: dict[str, list[float]] = dict(measured["ms"])
    mean_ms = {stage: statistics.mean(values) for stage, values in ms.items()}
    mean_ms["ask"] = measured["engines"][0]["client_ms"]

    def more(services: str, stages: Sequence[str]) -> float:
        known = sum(mean_ms[stage] for stage in stages if stage in mean_ms)
        used = (of["processor_ms"] for name, of in cluster.items() if name.startswith(services))
        return max(0.0, sum(used) - known)

    mean_ms |= {"serve": more("ray-worker", ELSEWHERE), "share": more("bot", HERE)}
    mean_ms["database"] = measured["postgres"]["server_ms"]
    return {stage: [mean] for stage, mean in mean_ms.items()} | ms


def beside(run: Mapping[str, float], found: Outcome) -> dict[str, float]:
    """What was measured and what was simulated."""
    names, simulated = ("answers_per_s", "median_ms", "within_95_ms"), found.figures()
    pairs = {"measured": run, "simulated": simulated}
    return {f"{name} {kind}": of[name] for name in names for kind, of in pairs.items()}


def simulated(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that docs/SCALING.md says of so many photos."""
    ms, two, measured = stage_ms(sections), CORES_PER_MACHINE, sections["photo"]["figures"]
    crowds = [
        {"people": run["people"], **beside(run, crowd(ms, run["people"], two, run["driver_ms"]))}
        for run in measured["runs"]
    ]
    engines = [
        {"replicas": run["replicas"], "clients": run["clients"], **beside(run, clients(ms, run))}
        for run in measured["engines"]
    ]
    plans = []
    for rate in RATES:
        plan = planned(rate, ms)
        found = flood(plan, ms, rate, min(600.0, 15_000 / rate * 60)).figures()
        plans.append({"photos_per_minute": rate, **vars(plan), "cores": plan.cores(), **found})
    alone = Plan(1, 1, two, 0, 0)
    one = [
        {"photos_per_minute": rate, **flood(alone, ms, rate, 60).figures()} for rate in ONE_RATES
    ]
    big = planned(RATES[-1], ms)
    halves = {"as planned": big}
    for name in ("tokens", "bots", "replicas", "database_cores"):
        halves[f"half of the {name}"] = dataclasses.replace(big, **{name: getattr(big, name) // 2})
    limits = [
        {"plan": name.replace("database_cores", "database's cores"), **of.figures()}
        for name, plan in halves.items()
        for of in [flood(plan, ms, RATES[-1], 9)]
    ]
    more = {stage: ms[stage][0] for stage in ("serve", "ask", "share", "database")}
    parts = {
        "more_ms": more,
        "crowds": crowds,
        "engines": engines,
        "plans": plans,
        "one_process": one,
    }
    return {**parts, "limits": limits}


def main() -> None:
    """Simulates, prints, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep it, and write docs/SCALING.md")
    parser.add_argument("--page", action="store_true", help="write docs/SCALING.md alone")
    arguments = parser.parse_args()
    if not arguments.page:
        found = simulated(recorded(SERVICE_TIMES))
        print(anything(found))
        if arguments.record:
            record("simulation", found, file=SERVICE_TIMES)
    if arguments.record or arguments.page:
        PAGE.write_text(
            written(PAGE.read_text(encoding="utf-8"), recorded(SERVICE_TIMES)), encoding="utf-8"
        )
        CHART.write_bytes(chart(recorded(SERVICE_TIMES)["simulation"]["figures"]))


if __name__ == "__main__":
    main()
