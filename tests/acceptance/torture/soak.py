"""`make soak`: an hour's worth of load played fast; the memory of every process stays flat.

Real processes, nothing broken: clients send through the front door as fast as they are
answered, until so many tasks have had their effect. Each process' resident memory is sampled
on the way. The first quarter fills caches and pools; from then on it must not grow.
"""

import dataclasses
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from torture.desk import Desk
from torture.load import Way, jobs
from torture.oracle import Oracle

SAMPLE_S = 2.0
PROGRESS_S = 30.0
CLIENTS = 12
# So many may be on their way: a queue that only grows would be measured, and not the memory.
AHEAD = 400
DRAIN_S = 300.0
# What may be added between the second quarter and the last, of what was there and at least.
GROWTH = 0.05
GROWTH_MB = 3.0
# Those that the system brings along and that are not ours; their caches fill up to a limit.
SERVERS = ("valkey", "secantusd")

Samples = dict[str, list[tuple[float, float]]]  # process -> (share of the run, MB)


def main(
    tasks: Annotated[int, typer.Option(help="Tasks that have their effect.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the load.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="New folder for logs and data.")] = None,
) -> None:
    """Play load fast and watch the memory of every process."""
    sys.stdout.reconfigure(line_buffering=True)
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = keep or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        oracle = Oracle().listen()
        desk = Desk(directory, oracle, {"LOG_LEVEL": "warning"})
        try:
            desk.start()
            samples, took_s = play(desk, oracle, tasks, seed, console)
        finally:
            desk.close()
            oracle.close()
    grown = growing(samples)
    show(console, samples, grown, tasks, took_s)
    sys.exit(1 if grown else 0)


def play(
    desk: Desk, oracle: Oracle, tasks: int, seed: int, console: Console
) -> tuple[Samples, float]:
    """Send until this many have had their effect; memory on the way, and how long it took.

    Raises:
        TimeoutError: what was sent was not done.
    """
    counter = Counter(tasks)
    clients = [
        threading.Thread(target=counter.client, args=(desk.open_way(), seed, n, oracle))
        for n in range(CLIENTS)
    ]
    began = told_at = time.monotonic()
    for client in clients:
        client.start()
    samples: Samples = {}
    while oracle.effects < tasks:
        desk.supervisor.tick()
        for process, mb in memory_mb(desk).items():
            samples.setdefault(process, []).append((oracle.effects / tasks, mb))
        now = time.monotonic()
        if counter.all_sent_at is not None and now - counter.all_sent_at > DRAIN_S:
            raise TimeoutError(f"{oracle.effects:,} of {tasks:,} effects, and no more to send")
        if now - told_at > PROGRESS_S:
            told_at = now
            rate = oracle.effects / (now - began)
            console.print(f"  {oracle.effects:,} done, {rate:.0f} a second", highlight=False)
        time.sleep(SAMPLE_S)
    took_s = time.monotonic() - began
    for client in clients:
        client.join()
    if desk.supervisor.exits:
        raise RuntimeError(f"processes ended: {desk.supervisor.exits}")
    return samples, took_s


class Counter:
    """How many jobs are still to be sent, over all clients."""

    def __init__(self, left: int) -> None:
        self._lock = threading.Lock()
        self._left = left
        self._total = left
        self.all_sent_at: float | None = None

    def client(self, way: Way, seed: int, n: int, oracle: Oracle) -> None:
        """Send one job after the other, as fast as they are accepted."""
        for job in jobs(seed, n, poison=False):
            if not job.must_have_effect:
                continue
            number = self._take()
            if number is None:
                break
            # As fast as the system goes: no pauses in handlers, or they would be the measure.
            fast = dataclasses.replace(job, pause_ms=0, wait_s=0.0)
            while number - oracle.effects > AHEAD:
                time.sleep(0.05)
            while way.send(fast) is None:
                time.sleep(0.05)
        way.close()

    def _take(self) -> int | None:
        with self._lock:
            if not self._left:
                self.all_sent_at = self.all_sent_at or time.monotonic()
                return None
            self._left -= 1
            return self._total - self._left


def memory_mb(desk: Desk) -> Mapping[str, float]:
    """Resident memory of each process, children by themselves."""
    sizes = desk.supervisor.rss_mb()
    for name, server in zip(SERVERS, (desk.servers.redis, desk.servers.mongo), strict=True):
        sizes[name] = psutil.Process(server.pid).memory_info().rss / 2**20
    return sizes


def quarter(samples: Iterable[tuple[float, float]], n: int) -> float:
    """Median of the n-th quarter of a run, from 1."""
    return median(mb for share, mb in samples if (n - 1) / 4 <= share <= n / 4)


def growing(samples: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """Processes of ours whose memory was not flat after the first quarter."""
    found = []
    for process, measured in samples.items():
        if process in SERVERS:
            continue
        before, after = quarter(measured, 2), quarter(measured, 4)
        if after - before > max(GROWTH_MB, GROWTH * before):
            found.append(process)
    return found


def show(
    console: Console, samples: Samples, grown: Sequence[str], tasks: int, took_s: float
) -> None:
    """The table of memory by quarters."""
    table = Table(
        title=f"Memory, MB: {tasks:,} tasks in {took_s:.0f} s ({tasks / took_s:.0f} a second)"
    )
    table.add_column("process")
    for heading in ("at first", "1st quarter", "2nd", "3rd", "4th", "highest", ""):
        table.add_column(heading, justify="right")
    for process, measured in sorted(samples.items()):
        told = "[red]grows[/]" if process in grown else "[green]flat[/]"
        table.add_row(
            process,
            f"{measured[0][1]:.1f}",
            *(f"{quarter(measured, n):.1f}" for n in (1, 2, 3, 4)),
            f"{max(mb for _, mb in measured):.1f}",
            "" if process in SERVERS else told,
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
