"""`make torture` and `make torture-celery`: a run, its progress, its table; the status tells."""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from torture.load import Load, Sent
from torture.oracle import Entry, Oracle
from torture.schedule import kinds, plan
from torture.stage import Applied
from torture.verdict import (
    Disturbance,
    Verdict,
    deaths_by_poison,
    judge,
    longest_recoveries,
    slowest,
)

TICK_S = 0.1
PROGRESS_S = 10.0
PATIENCE_S = 120.0
SHOWN = 20
# At 8 s of lease and five crashes a poison needs a minute and a half to come to its end.
POISON_FROM_S = 170.0


def main(
    minutes: Annotated[float, typer.Option(help="How long load and faults last.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of load and faults.")] = 1,
    per_s: Annotated[float, typer.Option(help="Jobs a second, where nothing is broken.")] = 18.0,
    gap_s: Annotated[float, typer.Option(help="Mean pause between faults.")] = 10.0,
    lease_s: Annotated[float, typer.Option(help="LEASE_S of the workers.")] = 8.0,
    celery: Annotated[bool, typer.Option("--celery", help="Torture bare Celery.")] = False,
    keep: Annotated[
        Path | None, typer.Option(help="New folder for logs and data, to be kept.")
    ] = None,
) -> None:
    """Torture the desk, or bare Celery, and tell what became of each job."""
    # Progress is for now, also through a pipe.
    sys.stdout.reconfigure(line_buffering=True)
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        directory = keep or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        run = Run(directory, minutes * 60, seed, per_s, gap_s, lease_s, celery, console)
        verdict = run.play()
    sys.exit(0 if verdict.good else 1)


class Run:
    """One run, from an empty folder to the verdict."""

    def __init__(
        self,
        directory: Path,
        length_s: float,
        seed: int,
        per_s: float,
        gap_s: float,
        lease_s: float,
        celery: bool,
        console: Console,
    ) -> None:
        self._length_s = length_s
        self._directory = directory
        self._console = console
        self._oracle = Oracle().listen()
        self._all_kinds = {kind.name: kind for kind in kinds(lease_s)}
        chosen = [kind for kind in self._all_kinds.values() if kind.bare_too or not celery]
        self._faults = plan(seed, length_s, (gap_s * 0.5, gap_s * 1.5), chosen)
        settings = {"LEASE_S": str(lease_s), "HEARTBEAT_S": str(lease_s / 4)}
        # One or the other: with ours, Celery gets our transport wherever it is imported.
        if celery:
            from torture.bare import BareDesk as Side
        else:
            from torture.desk import Desk as Side
        self._desk = Side(directory, self._oracle, settings)
        # Celery would deliver it for ever.
        poison = length_s >= POISON_FROM_S and not celery
        self._load = Load(seed, per_s, self._desk.open_way, poison=poison)
        console.print(
            f"seed {seed}: {len(self._faults)} faults in {length_s / 60:.1f} minutes, "
            f"about {per_s:.0f} jobs/s; logs in {directory}"
        )

    def play(self) -> Verdict:
        """Everything; ends all processes whatever happens."""
        try:
            self._desk.start()
            self._began_at = time.monotonic()
            self._load.start()
            self._break_and_mend()
            self._load.stop(PATIENCE_S)
            settled = self._settle()
            return self._judge(settled)
        finally:
            self._desk.close()
            self._oracle.close()

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began_at

    def _break_and_mend(self) -> None:
        breaker, supervisor = self._desk.breaker, self._desk.supervisor
        due = list(self._faults)
        told_at = 0.0
        # Late ones wait for the process that they want to break, and are done all the same.
        while self._now_s < self._length_s or due or breaker.busy:
            supervisor.tick()
            for fault in breaker.mend_due(self._now_s):
                self._tell(f"mended: {fault.kind} ({fault.target})")
            for fault in [fault for fault in due if fault.at_s <= self._now_s]:
                if breaker.free(fault) and breaker.ready(fault):
                    due.remove(fault)
                    self._tell(f"{fault.kind} ({fault.target})")
                    breaker.begin(fault, self._now_s)
            if self._now_s - told_at > PROGRESS_S:
                told_at = self._now_s
                self._progress()
            if self._load.failed:
                raise self._load.failed[0]
            time.sleep(TICK_S)

    def _tell(self, text: str) -> None:
        self._console.print(f"  {self._now_s:7.1f} s  {text}", highlight=False)

    def _progress(self) -> None:
        sent = self._load.sent()
        accepted = sum(each.accepted_at is not None for each in sent)
        self._console.print(
            f"[dim]  {self._now_s:7.1f} s  {accepted:,} accepted, {len(sent) - accepted} on their "
            f"way, {self._oracle.effects:,} effects, "
            f"{sum(self._desk.supervisor.restarts.values())} restarts[/dim]",
            highlight=False,
        )

    def _settle(self) -> float | None:
        """Wait until nothing is unfinished; the time it took, None where it never was."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            self._desk.supervisor.tick()
            if self._desk.settled():
                took_s = time.monotonic() - began
                self._tell(f"settled after {took_s:.1f} s")
                return took_s
            time.sleep(0.5)
        return None

    def _judge(self, settled: float | None) -> Verdict:
        sent, seen = self._load.sent(), self._oracle.entries()
        verdict = judge(sent, seen, self._desk.stored(), self._desk.entries())
        if settled is None:
            verdict.unfinished.append(f"not settled within {PATIENCE_S:.0f} s")
        verdict.left_behind += self._desk.left_behind()
        applied = self._desk.breaker.applied
        if len(applied) != len(self._faults):
            verdict.wrong_answers.append(f"{len(applied)} of {len(self._faults)} faults were done")
        verdict.longest_recovery_s = longest_recoveries(
            [*map(self._disturbance, applied), *deaths_by_poison(sent, seen)], sent, seen
        )
        self._show(verdict, applied)
        self._tell_slowest(sent, seen)
        return verdict

    def _tell_slowest(self, sent: list[Sent], seen: list[Entry]) -> None:
        """Write down what happened to those that waited longest, beside the logs."""
        with (self._directory / "slowest.txt").open("w") as out:
            for waited_s, each in slowest(sent, seen)[:SHOWN]:
                accepted_s = each.accepted_at - self._began_at
                print(
                    f"{each.job.key} ({each.job.kind}) waited {waited_s:.1f} s "
                    f"from {accepted_s:.1f} s of the run",
                    *self._desk.story(each.answers[0].task),
                    sep="\n    ",
                    file=out,
                )

    def _disturbance(self, fault: Applied) -> Disturbance:
        kind = self._all_kinds[fault.kind]
        since = fault.began_at if kind.recovers_from == "beginning" else fault.ended_at
        return Disturbance(fault.kind, fault.began_at, since, door=fault.target == "door")

    def _show(self, verdict: Verdict, applied: list[Applied]) -> None:
        console = self._console
        table = Table(title=f"{self._desk.name}: {self._length_s / 60:.1f} minutes", min_width=60)
        table.add_column("")
        table.add_column("", justify="right")
        table.add_row("accepted", f"{verdict.accepted:,}")
        table.add_row("completed", f"{verdict.completed:,}")
        table.add_row("dead letters, as planned", f"{verdict.failed_as_planned:,}")
        for name, lines in verdict.faults.items():
            table.add_row(name, f"[{'red' if lines else 'green'}]{len(lines):,}[/]")
        table.add_row("cancelled by their clients", f"{verdict.cancelled:,}")
        table.add_row("sent, or not: told as uncertain", f"{verdict.uncertain:,}")
        table.add_row("repeated handler runs", f"{verdict.repeated_runs:,}")
        table.add_row("processes started again", f"{sum(self._restarts.values()):,}")
        console.print(table)
        table = Table(title="Faults", min_width=60)
        for heading in ("kind", "times", "longest recovery, s"):
            table.add_column(heading, justify="left" if heading == "kind" else "right")
        times = Counter(fault.kind for fault in applied)
        for kind, longest_s in sorted(verdict.longest_recovery_s.items()):
            table.add_row(kind, str(times.get(kind, "")), f"{longest_s:.1f}")
        console.print(table)
        for (name, status), n in Counter(self._desk.supervisor.exits).items():
            console.print(f"{name} ended by itself, status {status}, {n} times", highlight=False)
        for name, lines in verdict.faults.items():
            for line in lines[:SHOWN]:
                console.print(f"[red]{name}[/]: {line}", highlight=False, soft_wrap=True)
            if len(lines) > SHOWN:
                console.print(f"[red]{name}[/]: and {len(lines) - SHOWN} more")
        console.print("[green]kept[/]" if verdict.good else "[bold red]BROKEN[/]")

    @property
    def _restarts(self) -> Counter[str]:
        return self._desk.supervisor.restarts


if __name__ == "__main__":
    typer.run(main)
