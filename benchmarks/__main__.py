"""`make bench`: how fast, as ratios to bare Celery. README.md says how to read it.

One run interleaves the two sides, because a machine's speed drifts by more than they
differ: each round measures both, the next round in the other order; the ratios are taken
within a round, and their median is what counts.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.crowd import Crowd, crowd
from benchmarks.decision import decision_us
from benchmarks.following_up import Following, following
from benchmarks.overtaking import Overtaking, overtaking
from benchmarks.reports import Year, year
from benchmarks.rescuing import Elsewhere, Passes, elsewhere, passes
from benchmarks.running import STEPS, Costs, running
from benchmarks.sides import Bare, Ours, Side, finish_times, worker
from benchmarks.syncing import Syncing, syncing
from benchmarks.understanding import Long, Usual, long_messages, usual_messages
from benchmarks.webhook import Answered, webhook
from deploy.servers import MongoServer, RedisServer
from orchestrator import logs
from orchestrator.settings import load

SLOTS = (1, 8)
CANDIDATES = (10, 100, 1000)
WARM_UP = 20


class Part(StrEnum):
    """What can be measured alone."""

    DECISION = "decision"
    UNDERSTANDING = "understanding"
    CELERY = "celery"
    OVERTAKING = "overtaking"
    RESCUE = "rescue"
    CROWD = "crowd"
    WEBHOOK = "webhook"
    SYNC = "sync"
    REPORTS = "reports"
    FOLLOW_UPS = "follow-ups"
    WORKFLOWS = "workflows"


@dataclass(frozen=True)
class Measure:
    """Something measured on both sides. A rate is better when higher, a time when lower."""

    name: str
    unit: str
    floor: float | None = None
    aim: float | None = None

    def reaches(self, ratio: float, bound: float) -> bool:
        """Whether a ratio to bare Celery is as good as a bound."""
        return ratio >= bound if self.unit == "tasks/s" else ratio <= bound


MEASURES = (
    Measure("round trip p50", "ms", floor=2.0, aim=1.5),
    Measure("round trip p99", "ms", floor=2.0, aim=1.5),
    Measure("drain, 1 slot", "tasks/s", floor=0.6, aim=1.0),
    Measure("drain, 8 slots", "tasks/s", floor=0.6, aim=1.0),
    Measure("submit", "tasks/s"),
)
Values = dict[str, float]  # a measure's name -> its value


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    tasks: int
    round_trips: int


def measure(
    side: Side, sizes: Sizes, log_file: Path, step: Callable[[str], None]
) -> dict[str, float]:
    """All measures of one side, once."""
    values: Values = {}
    for slots in SLOTS:
        name = f"drain, {slots} slot{'s' * (slots > 1)}"
        step(f"submit {sizes.tasks:,} tasks")
        began = time.perf_counter()
        task_ids = [side.submit() for _ in range(sizes.tasks)]
        values["submit"] = sizes.tasks / (time.perf_counter() - began)
        step(name)
        with worker(side, slots, log_file):
            times = finish_times(side, task_ids, timeout_s=60 + sizes.tasks / 20)
            values[name] = (len(times) - 1) / (times[-1] - times[0])
            if slots == SLOTS[-1]:
                step("round trips")
                trips = sorted(round_trips_ms(side, sizes.round_trips))
                values["round trip p50"] = trips[len(trips) // 2]
                values["round trip p99"] = trips[int(len(trips) * 0.99)]
    return values


def round_trips_ms(side: Side, count: int) -> list[float]:
    """Submit, wait, result: one after the other, on an idle worker."""
    trips = []
    for _ in range(WARM_UP + count):
        began = time.perf_counter()
        side.wait(side.submit())
        trips.append((time.perf_counter() - began) * 1e3)
    return trips[WARM_UP:]


def warm_up(ours: Ours, bare: Bare, logs: Path) -> None:
    """One task on each side: declarations, indexes and connections are made."""
    with worker(ours, 1, logs / "ours.log"):
        ours.wait_until_declared()
        ours.wait(ours.submit())
    with worker(bare, 1, logs / "bare.log"):
        bare.wait(bare.submit())


def compare(
    sizes: Sizes, directory: Path, console: Console, *, bare_events: bool
) -> dict[str, list[Values]]:
    """Measure both sides in rounds, in turn; side -> its values by round."""
    for name in ("redis", "mongodb"):
        (directory / name).mkdir()
    results: dict[str, list[Values]] = {Ours.name: [], Bare.name: []}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        RedisServer(directory / "redis") as redis_server,
        MongoServer(directory / "mongodb", sync=True) as mongo_server,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        # Another database of the same server: the other side's events stay out of it.
        ours = Ours(f"{redis_server.url}/0", mongo_server.url)
        bare = Bare(f"{redis_server.url}/1", events=bare_events)
        steps_of_a_side = 2 * len(SLOTS) + 1
        bar = progress.add_task("warming up", total=2 * steps_of_a_side * sizes.rounds)
        warm_up(ours, bare, directory)
        for round_ in range(sizes.rounds):
            sides: list[Side] = [ours, bare] if round_ % 2 == 0 else [bare, ours]
            for side in sides:

                def step(what: str, where: str = f"round {round_ + 1}, {side.name}") -> None:
                    progress.update(bar, advance=1, description=f"{where}: {what}")

                log_file = directory / f"{side.module}.log"
                results[side.name].append(measure(side, sizes, log_file, step))
        ours.close()
        bare.close()
    return results


def overtake(backlog: int, directory: Path, console: Console) -> Overtaking:
    """What waits behind a backlog, and what does not; told as a table, too."""
    for name in ("redis-2", "mongodb-2"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-2") as redis_server,
        MongoServer(directory / "mongodb-2", sync=True) as mongo_server,
        console.status(f"a backlog of {backlog:,}"),
    ):
        ours = Ours(f"{redis_server.url}/0", mongo_server.url)
        found = overtaking(ours, backlog, directory / "overtaking.log")
        ours.close()
    table = Table(title=f"Behind {backlog:,} low ones, {found.left:,} left at the end; ms, 8 slots")
    for heading in ("", "idle p50", "idle worst", "behind p50", "behind worst"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for name, idle, behind in (
        ("a critical task's wait for a worker", found.critical_idle, found.critical_behind),
        ("a low hand-over, from its claim to its end", found.begun_idle, found.begun_behind),
    ):
        cells = (idle.p50, idle.worst, behind.p50, behind.worst)
        table.add_row(name, *(f"{cell:.1f}" for cell in cells))
    console.print(table)
    return found


def rescue(
    finished: int, kills: int, directory: Path, console: Console
) -> tuple[Passes, Elsewhere]:
    """What the rescuer costs and how soon it mends; told as a table, too."""
    for name in ("redis-3", "mongodb-3"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-3") as redis_server,
        MongoServer(directory / "mongodb-3", sync=True) as mongo_server,
        console.status("rescue") as status,
    ):

        def step(what: str) -> None:
            status.update(f"rescue: {what}")

        # A desk of its own for each: nobody else's tasks are in the way.
        desk = Ours(f"{redis_server.url}/0", mongo_server.url, database="kills")
        killed = elsewhere(desk, kills, directory / "rescue.log", step)
        desk.close()
        desk = Ours(f"{redis_server.url}/1", mongo_server.url, database="passes")
        passed = passes(desk, finished, finished, step)
        desk.close()
    table = Table(title=f"Rescue: {finished:,} tasks finished, as many queued; {kills} kills")
    for heading in ("", "p50", "worst", "figure"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    rows = (
        ("an idle pass, ms", passed.p50_ms, passed.worst_ms, 20.0),
        ("back after FLUSHALL, s per 10,000", passed.recovery_s_per_10_000, None, 10.0),
        ("a killed worker's task runs elsewhere, s", killed.p50_s, killed.worst_s, 10.0),
    )
    for name, usual, worst, figure in rows:
        # A promise is kept by the worst case; a cost is what it usually is.
        judged = usual if worst is None or worst == passed.worst_ms else worst
        table.add_row(
            name,
            f"{usual:.1f}",
            "" if worst is None else f"{worst:.1f}",
            _judged(figure, judged < figure),
        )
    console.print(table)
    return passed, killed


def besieged(waiters: int, directory: Path, console: Console) -> Crowd:
    """A plain request beside so many streams and as many chats; told as a table, too."""
    for name in ("redis-4", "mongodb-4"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-4") as redis_server,
        MongoServer(directory / "mongodb-4", sync=True) as mongo_server,
        console.status(f"{waiters:,} streams and {waiters:,} chats"),
    ):
        redis_url = f"{redis_server.url}/0"
        found = crowd(waiters, waiters, redis_url, mongo_server.url, directory / "door.log")
    table = Table(
        title=f"A plain request beside {found.streams:,} open streams and {found.chats:,} waiting "
        f"chats of one front door ({found.kb_per_waiter:.0f} kB of memory each)"
    )
    for heading in ("ms", "alone p50", "p99", "beside p50", "p99", "ratio of p99"):
        table.add_column(heading, justify="left" if heading == "ms" else "right")
    for name, alone in found.alone.items():
        beside = found.beside[name]
        times = (alone.p50, alone.p99, beside.p50, beside.p99)
        table.add_row(name, *(f"{each:.1f}" for each in times), f"{beside.p99 / alone.p99:.2f}")
    console.print(table)
    return found


def sync(rows: int, directory: Path, console: Console) -> dict[str, Syncing]:
    """What a sync of a file costs beside a plain read of it; told as a table, too."""
    for name in ("redis-5", "mongodb-5", "sync"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-5") as redis_server,
        MongoServer(directory / "mongodb-5", sync=True) as mongo_server,
        console.status(f"files of {rows:,} rows"),
    ):
        found = syncing(rows, directory / "sync", f"{redis_server.url}/0", mongo_server.url)
    table = Table(title=f"A sync of {rows:,} rows, rows/s, beside a plain read of the file")
    for heading in ("", "plain", "told", "ratio", "brought in", "ratio", "again", "grew, MB"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for form, each in found.items():
        table.add_row(
            form,
            f"{each.plain:,.0f}",
            f"{each.told:,.0f}",
            f"[bold]{each.ratio_told:.3f}[/]",
            f"{each.brought_in:,.0f}",
            f"[bold]{each.ratio_brought_in:.3f}[/]",
            f"{each.again:,.0f}",
            f"{each.grew_mb:.0f}",
        )
    console.print(table)
    return found


def run_costs(rounds: int, directory: Path, console: Console) -> Costs:
    """A workflow run beside its bare tasks; told as a table, too."""
    for name in ("redis-runs", "mongodb-runs"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-runs") as redis_server,
        MongoServer(directory / "mongodb-runs", sync=True) as mongo_server,
        console.status("workflow runs") as status,
    ):

        def step(what: str) -> None:
            status.update(f"workflow runs: {what}")

        ours = Ours(f"{redis_server.url}/0", mongo_server.url, database="runs")
        costs = running(ours, rounds, directory / "running.log", step)
        ours.close()
    table = Table(title=f"A workflow run of {STEPS} tasks, median of {rounds} rounds")
    for heading in ("", "ms", "ratio", "of rounds", "aim"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    table.add_row("submitted one after the other by hand", f"{costs.by_hand_ms:.0f}", "", "", "")
    table.add_row(
        "as a run",
        f"{costs.as_run_ms:.0f}",
        f"[bold]{costs.ratio:.2f}[/]",
        f"{costs.lowest_ratio:.2f}-{costs.highest_ratio:.2f}",
        _judged(1.25, costs.ratio < 1.25),
    )
    console.print(table)
    return costs


def delivered(requests: int, directory: Path, console: Console) -> list[Answered]:
    """How soon WhatsApp's webhook is answered; told as a table, too."""
    for name in ("redis-webhook", "mongodb-webhook"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-webhook") as redis_server,
        MongoServer(directory / "mongodb-webhook", sync=True) as mongo_server,
        console.status("WhatsApp's webhook"),
    ):
        log_file = directory / "webhook.log"
        answered = webhook(requests, f"{redis_server.url}/0", mongo_server.url, log_file)
    yardstick = answered[0].p50
    table = Table(title=f"WhatsApp's webhook, ms to its 200 ({requests} requests of each kind)")
    for heading in ("", "p50", "p99", "worst", "to storing nothing"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for each in answered:
        table.add_row(
            each.what,
            f"{each.p50:.1f}",
            f"{each.p99:.1f}",
            f"{each.worst:.1f}",
            f"{each.p50 / yardstick:.1f}",
        )
    console.print(table)
    return answered


def summarise(results: dict[str, list[Values]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and of the ratios within each."""
    summary = {}
    for wanted in MEASURES:
        ours, bare = ([values[wanted.name] for values in side] for side in results.values())
        ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
        summary[wanted.name] = {
            "ours": median(ours),
            "bare": median(bare),
            "ratio": median(ratios),
            "lowest_ratio": min(ratios),
            "highest_ratio": max(ratios),
        }
    return summary


def show(console: Console, sizes: Sizes, summary: dict[str, dict[str, float]]) -> None:
    """The table of ratios."""
    table = Table(
        title=f"Against bare Celery: {sizes.tasks:,} tasks, {sizes.round_trips} round trips, "
        f"median of {sizes.rounds} round{'s' * (sizes.rounds > 1)}"
    )
    for heading in ("", "ours", "bare", "ratio", "of rounds", "floor", "aim"):
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    for wanted in MEASURES:
        row = summary[wanted.name]
        ratio, unit = row["ratio"], wanted.unit
        digits = 0 if unit == "tasks/s" else 1
        table.add_row(
            f"{wanted.name}, {unit}",
            f"{row['ours']:,.{digits}f}",
            f"{row['bare']:,.{digits}f}",
            f"[bold]{ratio:.2f}[/]",
            f"{row['lowest_ratio']:.2f}-{row['highest_ratio']:.2f}",
            *(
                "" if bound is None else _judged(bound, wanted.reaches(ratio, bound))
                for bound in (wanted.floor, wanted.aim)
            ),
        )
    console.print(table)


def show_decisions(console: Console, decisions: dict[int, float]) -> None:
    """The table of routing decisions."""
    table = Table(title="One routing decision (balanced)")
    for heading in ("candidates", "decision", "per candidate", "aim, µs"):
        table.add_column(heading, justify="right")
    for candidates, cost_us in decisions.items():
        aim = _judged(50, cost_us < 50) if candidates == 100 else ""
        table.add_row(
            f"{candidates:,}", f"{cost_us:,.1f} µs", f"{cost_us / candidates:.2f} µs", aim
        )
    console.print(table)


def show_understanding(console: Console, usual: Usual, long: list[Long]) -> None:
    """The table of what messages cost to understand."""
    table = Table(title=f"Understanding: {usual.messages:,} usual messages, and 10 kB of the worst")
    for heading in ("", "CPU, ms", "aim", "to splitting into words", "to half the text"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    table.add_row("usual, p50", f"{usual.p50_ms:.2f}", "", f"{usual.ratio:,.0f}", "")
    table.add_row("usual, p99", f"{usual.p99_ms:.2f}", _judged(5, usual.p99_ms < 5), "", "")
    for each in long:
        table.add_row(
            f"10 kB: {each.case}",
            f"{each.ms:.1f}",
            _judged(50, each.ms < 50),
            f"{each.ratio:,.0f}",
            f"{each.to_half:.1f}",
        )
    console.print(table)


def _judged(bound: float, reached: bool) -> str:
    return f"[{'green' if reached else 'red'}]{bound:g} {'✓' if reached else '✗'}[/]"


def reported(messages: int, days: int, directory: Path, console: Console) -> Year:
    """What a year, or some days, of messages costs to count and to report; told as a table, too."""
    for name in ("redis-6", "mongodb-6"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-6") as redis_server,
        MongoServer(directory / "mongodb-6", sync=False) as mongo_server,
        console.status(f"{days} days of {messages:,} messages"),
    ):
        cost = year(messages, days, mongo_server.url, f"{redis_server.url}/0")
    table = Table(title=f"{days} days of {messages:,} messages")
    for heading in ("", "s", "to grouping them"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    grouped = f"{cost.count_s / cost.group_s:.2f}"
    table.add_row(f"count all hours ({cost.counted_per_s:,.0f}/s)", f"{cost.count_s:.1f}", grouped)
    table.add_row("group the tasks by state, once", f"{cost.group_s:.1f}", "1")
    table.add_row("figures of all of it", f"{cost.report_s:.2f}", "")
    table.add_row("figures, page and PDF", f"{cost.render_s:.2f}", "")
    console.print(table)
    return cost


def followed_up(sessions: int, directory: Path, console: Console) -> Following:
    """What finding whom to write to costs; told as a table, too."""
    for name in ("redis-7", "mongodb-7"):
        (directory / name).mkdir()
    with (
        RedisServer(directory / "redis-7") as redis_server,
        MongoServer(directory / "mongodb-7", sync=False) as mongo_server,
        console.status("follow-ups") as status,
    ):
        found = following(
            sessions,
            mongo_server.url,
            f"{redis_server.url}/0",
            directory,
            lambda what: status.update(f"follow-ups: {what}"),
        )
    table = Table(title="Finding whom to write to, two rules")
    for heading in ("conversations", "an idle pass, ms", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row(f"{found.few:,}", f"{found.few_ms:.1f}", "1")
    ratio = found.many_ms / found.few_ms
    table.add_row(f"{found.sessions:,}", f"{found.many_ms:.1f}", f"{ratio:.2f}")
    console.print(table)
    console.print(f"The first time, {found.looked_at_per_s:,.0f} conversations a second.")
    return found


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of both sides.")] = 3,
    tasks: Annotated[int, typer.Option(min=100, help="Tasks of one drain.")] = 5000,
    round_trips: Annotated[int, typer.Option(min=20, help="Idle round trips a round.")] = 300,
    quick: Annotated[bool, typer.Option("--quick", help="All of it small: a look.")] = False,
    backlog: Annotated[int, typer.Option(min=100, help="Low tasks to overtake.")] = 10_000,
    finished: Annotated[
        int, typer.Option(min=100, help="Tasks finished, and as many queued, around a rescuer.")
    ] = 100_000,
    kills: Annotated[int, typer.Option(min=1, help="Workers killed in the middle of a task.")] = 5,
    waiters: Annotated[int, typer.Option(min=1, help="Open streams, and as many chats.")] = 500,
    messages: Annotated[int, typer.Option(min=1000, help="Of a year that is reported.")] = 100_000,
    sessions: Annotated[
        int, typer.Option(min=1000, help="Conversations to find silent customers among.")
    ] = 100_000,
    sync_rows: Annotated[int, typer.Option(min=500, help="Rows of a synced file.")] = 100_000,
    chains: Annotated[int, typer.Option(min=1, help="Workflow runs, and as many by hand.")] = 30,
    bare_events: Annotated[
        bool, typer.Option(help="Whether bare Celery, too, sends what Flower shows of tasks.")
    ] = True,
    only: Annotated[Part | None, typer.Option(help="One part alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, all rounds.")] = False,
) -> None:
    """Measure, as ratios to bare Celery on the same embedded broker. Judges nothing."""
    console = Console(stderr=as_json)
    sizes = Sizes(rounds, tasks, round_trips)
    days = 365
    if quick:
        sizes, backlog, finished, kills, waiters = Sizes(1, 500, 100), 3000, 5000, 1, 50
        messages, days, sessions = 2000, 14, 5000
        sync_rows, chains = 3000, 5
    told: dict[str, Any] = {"sizes": asdict(sizes), "bare_events": bare_events}
    if only in (None, Part.DECISION):
        told["decision_us"] = {candidates: decision_us(candidates) for candidates in CANDIDATES}
        show_decisions(console, told["decision_us"])
    if only in (None, Part.UNDERSTANDING):
        usual, long = usual_messages(), long_messages()
        told["understanding"] = {"usual": asdict(usual), "long": [asdict(each) for each in long]}
        show_understanding(console, usual, long)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        with (directory / "caller.log").open("w") as log:
            with redirect_stderr(log):
                # What a front door logs is part of what it costs.
                logs.configure(load())
            if only in (None, Part.CELERY):
                results = compare(sizes, directory, console, bare_events=bare_events)
                told |= {"summary": summarise(results), "rounds": results}
                show(console, sizes, told["summary"])
            if only in (None, Part.OVERTAKING):
                told["overtaking_ms"] = asdict(overtake(backlog, directory, console))
            if only in (None, Part.RESCUE):
                passed, killed = rescue(finished, kills, directory, console)
                told["rescue"] = asdict(passed) | {"elsewhere": asdict(killed)}
            if only in (None, Part.CROWD):
                told["crowd"] = asdict(besieged(waiters, directory, console))
            if only in (None, Part.WEBHOOK):
                answered = delivered(50 if quick else round_trips, directory, console)
                told["webhook"] = [asdict(each) for each in answered]
            if only in (None, Part.SYNC):
                found = sync(sync_rows, directory, console)
                told["sync"] = {form: asdict(each) for form, each in found.items()}
            if only in (None, Part.REPORTS):
                told["reports"] = asdict(reported(messages, days, directory, console))
            if only in (None, Part.FOLLOW_UPS):
                told["follow_ups"] = asdict(followed_up(sessions, directory, console))
            if only in (None, Part.WORKFLOWS):
                told["workflows"] = asdict(run_costs(chains, directory, console))
    if as_json:
        json.dump(told, sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    typer.run(main)
