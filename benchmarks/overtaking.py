"""How long a critical task, and a hand-over that has begun, wait behind a backlog of low ones."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.sides import Ours, worker
from orchestrator.tasks import Priority

SLOTS = 8
CRITICAL = 50
RELAYS = 20
# Between two of them, so that each meets the backlog and not the one before it.
PAUSE_S = 0.1


@dataclass(frozen=True)
class Waits:
    """Milliseconds: of a critical task from its submission to its claim by a worker, of a hand-over
    from its first claim to its end."""

    p50: float
    worst: float


@dataclass(frozen=True)
class Overtaking:
    """On an idle worker, and behind a backlog, of which so much was left at the end."""

    critical_idle: Waits
    critical_behind: Waits
    begun_idle: Waits
    begun_behind: Waits
    left: int


def overtaking(ours: Ours, backlog: int, log_file: Path) -> Overtaking:
    """Measure idle, then with a backlog that is there before the worker is.

    The hand-overs are at its front, at the backlog's own priority: they begin at once, and all of
    it stands before what they hand over.

    Raises:
        RuntimeError: the backlog was gone before the last task: nothing was overtaken.
    """
    with worker(ours, SLOTS, log_file):
        ours.wait_until_declared()
        ours.wait(ours.submit())
        critical_idle = _waits(ours)
        begun_idle = _begun([_relay(ours) for _ in range(RELAYS)], ours)
    relays = [ours.submit_relay(Priority.LOW) for _ in range(RELAYS)]
    for _ in range(backlog):
        ours.submit(Priority.LOW)
    with worker(ours, SLOTS, log_file):
        while ours.queued() >= backlog:
            time.sleep(PAUSE_S)
        critical_behind = _waits(ours)
        left = ours.queued()
        for task_id in relays:
            ours.wait(task_id)
    if left == 0:
        raise RuntimeError(f"{backlog} tasks were no backlog: none was left")
    return Overtaking(critical_idle, critical_behind, begun_idle, _begun(relays, ours), left)


def _relay(ours: Ours) -> str:
    task_id = ours.submit_relay(Priority.LOW)
    ours.wait(task_id)
    return task_id


def _begun(task_ids: list[str], ours: Ours) -> Waits:
    took = [ours.relayed_ms(task_id) for task_id in task_ids]
    return Waits(median(took), max(took))


def _waits(ours: Ours) -> Waits:
    waits = []
    for _ in range(CRITICAL):
        task_id = ours.submit(Priority.CRITICAL)
        ours.wait(task_id)
        waits.append(ours.waited_ms(task_id))
        time.sleep(PAUSE_S)
    return Waits(median(waits), max(waits))
