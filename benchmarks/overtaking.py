"""How long a critical task waits behind a backlog of low ones, and where nothing is queued."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.sides import Ours, worker
from orchestrator.tasks import Priority

SLOTS = 8
CRITICAL = 50
# Between two of them, so that each meets the backlog and not the one before it.
PAUSE_S = 0.1


@dataclass(frozen=True)
class Waits:
    """Milliseconds from submitting a critical task to its claim by a worker."""

    p50: float
    worst: float


def overtaking(ours: Ours, backlog: int, log_file: Path) -> tuple[Waits, Waits, int]:
    """Waits on an idle worker, waits behind a backlog, and how much of it was left at the end.

    Raises:
        RuntimeError: the backlog was gone before the last critical task: nothing was overtaken.
    """
    with worker(ours, SLOTS, log_file):
        ours.wait_until_declared()
        ours.wait(ours.submit())
        idle = _waits(ours)
    for _ in range(backlog):
        ours.submit(Priority.LOW)
    with worker(ours, SLOTS, log_file):
        while ours.queued() >= backlog:
            time.sleep(PAUSE_S)
        behind = _waits(ours)
        left = ours.queued()
    if left == 0:
        raise RuntimeError(f"{backlog} tasks were no backlog: none was left")
    return idle, behind, left


def _waits(ours: Ours) -> Waits:
    waits = []
    for _ in range(CRITICAL):
        task_id = ours.submit(Priority.CRITICAL)
        ours.wait(task_id)
        waits.append(ours.waited_ms(task_id))
        time.sleep(PAUSE_S)
    return Waits(median(waits), max(waits))
