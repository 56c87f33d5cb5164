"""`make soak`: an hour's worth of load played fast; the memory of every process stays flat.

Real processes, nothing broken: clients send through the front door as fast as they are
answered, until so many effects have taken place. Each process' resident memory is sampled
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
from torture.load import RETRY_S, Way, jobs
from torture.oracle import Oracle

SAMPLE_S = 1.0
PROGRESS_S = 30.0
CLIENTS = 12
# So many may be on their way: a queue that only grows would be measured, and not the memory.
AHEAD = 400
# What may be added between the second quarter and the last, of what was there and at least.
GROWTH = 0.05
GROWTH_MB = 3.0
# Those that the system brings along and that are not ours; their caches fill up to a limit.
SERVERS = ("valkey", "secantusd")

Samples = dict[str, list[tuple[float, float]]]  # process -> (share of the run, MB)


def main(
    tasks: Annotated[int, typer.Option(help="Effects of tasks to wait for.")] = 100_000,
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
        RuntimeError: a process ended.
    """
    pace = Pace()
    clients = [
        threading.Thread(target=pace.client, args=(desk.open_way(), seed, n), daemon=True)
        for n in range(CLIENTS)
    ]
    began = told_at = time.monotonic()
    for client in clients:
        client.start()
    samples: Samples = {}
    while (done := min(tasks, oracle.effects)) < tasks:
        pace.follow(desk.engine.store.count_unfinished(2 * AHEAD))
        for process, mb in memory_mb(desk).items():
            samples.setdefault(process, []).append((done / tasks, mb))
        now = time.monotonic()
        if desk.supervisor.ended():
            raise RuntimeError(f"ended by themselves: {', '.join(desk.supervisor.ended())}")
        if now - told_at > PROGRESS_S:
            told_at = now
            console.print(f"  {done:,} done, {done / (now - began):.0f} a second", highlight=False)
        time.sleep(SAMPLE_S)
    took_s = time.monotonic() - began
    pace.stop()
    for client in clients:
        client.join()
    return samples, took_s


class Pace:
    """Lets clients send as fast as the system goes, and not faster."""

    def __init__(self) -> None:
        self._go_on = threading.Event()
        self._stopped = False

    def follow(self, unfinished: int) -> None:
        """Hold the clients, or let them go on, by how much is on its way."""
        if unfinished > AHEAD:
            self._go_on.clear()
        else:
            self._go_on.set()

    def stop(self) -> None:
        """No more."""
        self._stopped = True
        self._go_on.set()

    def client(self, way: Way, seed: int, n: int) -> None:
        """Send one job after the other."""
        for job in jobs(seed, n, poison=False):
            # A handler that pauses would be the measure.
            fast = dataclasses.replace(job, pause_ms=0, wait_s=0.0)
            while not self._stopped:
                self._go_on.wait()
                if way.send(fast) is not None:
                    break
                time.sleep(RETRY_S)
            if self._stopped:
                break
        way.close()


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
