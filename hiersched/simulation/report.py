"""One run of a simulated cluster from a few numbers, and what is told of it.

`run_simulation` grows a tree, calls every engine once, hands out tasks if any are wanted, breaks what is to break while
they are under way, and waits until all has come to rest. The report says how long each took, how many messages each
level of schedulers sent and received, and the command that makes the same run again.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TypeVar

import msgspec

from hiersched.core.topology import levels
from hiersched.errors import UserError
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.network import Weather
from hiersched.simulation.payload import Argument
from hiersched.simulation.requests import Request

T = TypeVar("T")

SLOWNESS = 10.0  # how many times longer a slow engine takes
_FAULTS_S_MIN = 0.001


class Scenario(msgspec.Struct, frozen=True):
    """What to simulate. The defaults: one call on every engine, nothing breaks.

    fanout, leaf_engines: as for `plan_tree`; None: chosen by the plan. slots_per_host: engines of one host. run_s: how
    long the call runs on each engine. tasks, task_s: load-balanced tasks, and how long each runs. kill,
    kill_schedulers: how many of them end while the work is under way. slow: how many engines are SLOWNESS times slower.
    partitions: `LEVEL[:COUNT[:SECONDS]]`, so many schedulers of a level cut off from above, for so long or for good.
    jitter_s, breaks: as for `Weather`. checked: look at every scheduler after each event; None: if the world is small.
    """

    engines: int
    seed: int = 1
    fanout: int | None = None
    leaf_engines: int | None = None
    slots_per_host: int = 64
    run_s: float = 0.0
    tasks: int = 0
    task_s: float = 0.01
    kill: int = 0
    kill_schedulers: int = 0
    slow: int = 0
    partitions: tuple[str, ...] = ()
    jitter_s: float = 0.0
    breaks: float = 0.0
    checked: bool | None = None

    def command(self) -> str:
        """The command that replays the run."""
        words = ["hiersched sim", f"--engines {self.engines}", f"--seed {self.seed}"]
        for name, default in zip(self.__struct_fields__, self._defaults(), strict=True):
            value = getattr(self, name)
            option = "--" + name.replace("_", "-")
            if name == "partitions":
                words += [f"--partition {one}" for one in value]
            elif name == "checked":
                words += [] if value is None else ["--checked" if value else "--no-checked"]
            elif value != default:
                words.append(f"{option} {value}")
        return " ".join(words)

    def _defaults(self) -> list[object]:
        """Default of each field; for those that are always named, their value."""
        blank = Scenario(self.engines, self.seed)
        return [getattr(blank, name) for name in self.__struct_fields__]


class Work(msgspec.Struct, frozen=True):
    """What became of a call or of the tasks. took_s: from sending to the last outcome at the client, virtual."""

    name: str
    parts: int
    answers: int
    errors: dict[str, int]
    took_s: float


class LevelTraffic(msgspec.Struct, frozen=True):
    """Messages that the schedulers of one level sent and received until all was answered. most: by the busiest one."""

    level: int
    schedulers: int
    children_max: int
    sent: int
    received: int
    most: int


class Report(msgspec.Struct, frozen=True):
    """What a run gave. predicted_s: what the plan says the call takes, seen from the client, when nothing breaks.

    events, digest: how many events there were, and a number that is the same for the same run only.
    """

    scenario: Scenario
    hosts: int
    depth: int
    schedulers: int
    fanout: int
    leaf_engines: int
    predicted_s: float
    work: list[Work]
    levels: list[LevelTraffic]
    engines_left: int
    lasted_s: float
    events: int
    digest: str


def run_simulation(scenario: Scenario) -> Report:
    """Run one scenario to its end. Raises PlanError or UserError for senseless numbers, Bug if a check fails."""
    weather = Weather(jitter_s=scenario.jitter_s, breaks=scenario.breaks)
    setup = Setup(
        slots_per_host=scenario.slots_per_host, weather=weather, checked=scenario.checked, replay=scenario.command()
    )
    with _without_collector():
        world = World(
            scenario.engines,
            fanout=scenario.fanout,
            leaf_engines=scenario.leaf_engines,
            seed=scenario.seed,
            setup=setup,
        )
        requests = {"call on all engines": world.submit_to_all(at_s=0.0, run_s=scenario.run_s)}
        if scenario.tasks:
            arguments = [Argument(scenario.task_s, number) for number in range(scenario.tasks)]
            requests[f"{scenario.tasks:,} tasks"] = world.submit_tasks(arguments, at_s=0.0)
        _break_things(world, scenario)
        world.run_until(lambda: all(request.done() for request in requests.values()))
        rows = _traffic(world)  # what follows are beats and acknowledgements
        world.settle()
    return _report(world, scenario, requests, rows)


def _break_things(world: World, scenario: Scenario) -> None:
    """Draw what breaks, at any time while the work is under way as planned."""
    rng = world.rng
    work_s = scenario.tasks * scenario.task_s / scenario.engines
    until_s = max(predicted_s(world, scenario.run_s), work_s, _FAULTS_S_MIN)
    for rank in _draw(rng, range(scenario.engines), scenario.slow, "engines"):
        world.slow(rank, SLOWNESS, at_s=0.0)
    for rank in _draw(rng, range(scenario.engines), scenario.kill, "engines"):
        world.kill(rank, at_s=rng.random() * until_s)
    for node in _draw(rng, world.schedulers()[1:], scenario.kill_schedulers, "schedulers below the root"):
        world.end(node, at_s=rng.random() * until_s)
    for text in scenario.partitions:
        level, count, for_s = _partition(text)
        nodes = _draw(rng, world.schedulers(level), count, f"schedulers of level {level}")
        world.partition(nodes, at_s=rng.random() * until_s, for_s=for_s)


def _draw(rng: Random, items: Sequence[T], count: int, what: str) -> list[T]:
    """`count` of the items. Raises UserError if there are not so many."""
    if count > len(items):
        raise UserError(f"{count} of {len(items)} {what}: there are not so many")
    return rng.sample(items, count)


def _partition(text: str) -> tuple[int, int, float | None]:
    """(level, count, seconds or None) of `LEVEL[:COUNT[:SECONDS]]`."""
    level, count, for_s = [*text.split(":"), "", ""][:3]
    try:
        return int(level), int(count or 1), float(for_s) if for_s else None
    except ValueError:
        raise UserError(f"partition {text!r}: give LEVEL[:COUNT[:SECONDS]], for instance 1:2:5") from None


def predicted_s(world: World, run_s: float = 0.0) -> float:
    """A call on all engines as the plan sees it, and the client's part in it."""
    costs, engines = world.plan.costs, world.plan.engines
    client_s = 2 * (costs.send_s + costs.hop_s + costs.receive_s) + engines * costs.result_s
    return world.plan.span_s + run_s + client_s


@contextmanager
def _without_collector() -> Iterator[None]:
    """No garbage collection: a large world is one graph that lives to the end, and looking through it is costly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# --- what is told -----------------------------------------------------------------------------------------------------


def _traffic(world: World) -> list[LevelTraffic]:
    """What the schedulers of each level have sent and received so far."""
    rows = []
    for level in levels(world.plan):
        nodes = world.schedulers(level.level)
        rows.append(
            LevelTraffic(
                level=level.level,
                schedulers=level.schedulers,
                children_max=level.fanout_max,
                sent=sum(node.sent for node in nodes),
                received=sum(node.received for node in nodes),
                most=max(node.sent + node.received for node in nodes),
            )
        )
    return rows


def _report(world: World, scenario: Scenario, requests: dict[str, Request], rows: list[LevelTraffic]) -> Report:
    return Report(
        scenario=scenario,
        hosts=len(world.plan.hosts),
        depth=world.plan.depth,
        schedulers=world.plan.schedulers,
        fanout=world.plan.fanout,
        leaf_engines=world.plan.leaf_engines,
        predicted_s=predicted_s(world, scenario.run_s),
        work=[_outcome(name, request) for name, request in requests.items()],
        levels=rows,
        engines_left=len(world.living()),
        lasted_s=world.now_s,
        events=world.timeline.events,
        digest=f"{world.timeline.digest & (1 << 64) - 1:016x}",
    )


def _outcome(name: str, request: Request) -> Work:
    errors = Counter(error.__name__ for error in request.errors.values())
    parts = len(request.outcomes)
    return Work(name, parts, parts - errors.total(), dict(sorted(errors.items())), request.took_s)


def render(report: Report) -> str:
    """The report for people, in lines of text."""
    scenario = report.scenario
    lines = [
        f"{scenario.engines:,} engines on {report.hosts:,} hosts, {report.schedulers:,} schedulers in {report.depth} "
        f"levels, fanout {report.fanout}, {report.leaf_engines} engines a leaf",
        "",
    ]
    for work in report.work:
        errors = "".join(f", {count:,} {name}" for name, count in work.errors.items())
        lines.append(f"{work.name}: {work.took_s * 1e3:.3f} ms, {work.answers:,} answers{errors}")
    lines += [
        f"predicted for a call on all engines: {report.predicted_s * 1e3:.3f} ms",
        f"at rest after {report.lasted_s:.3f} s with {report.engines_left:,} engines, {report.events:,} events",
        "",
        f"{'level':>5} {'schedulers':>10} {'children':>8} {'sent':>12} {'received':>12} {'per node':>10} {'most':>8}",
    ]
    for row in report.levels:
        mean = (row.sent + row.received) / row.schedulers
        lines.append(
            f"{row.level:>5} {row.schedulers:>10,} {row.children_max:>8} {row.sent:>12,} {row.received:>12,} "
            f"{mean:>10.1f} {row.most:>8,}"
        )
    lines += ["", f"again: {scenario.command()}", f"trace: {report.digest}"]
    return "\n".join(lines)
