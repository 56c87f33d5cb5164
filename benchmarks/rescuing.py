"""What the rescuer costs when there is nothing to mend, and how soon it has mended.

On servers of its own: the pass is watched among many finished tasks and a healthy backlog; then
Redis is emptied; and workers are killed in the middle of a task.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel

from benchmarks.sides import ROOT, START_S, Ours
from deploy.servers import leashed
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.tasks import Priority, Request, State, Task

AGENTS = 6
PASSES = 50
PAUSE_S = 0.1  # between two passes: a lease's worth of passes is watched, the dearer ones, too
CHUNK = 1000
HOLD_S = 120.0  # longer than it takes to notice that its worker is gone
PATIENCE_S = 60.0


class Nothing(BaseModel):
    """Their payload."""


@dataclass(frozen=True)
class Passes:
    """An idle pass, and how soon a backlog was back in the queues of an emptied Redis."""

    finished: int
    backlog: int
    p50_ms: float
    worst_ms: float
    recovery_s_per_10_000: float


@dataclass(frozen=True)
class Elsewhere:
    """From the SIGKILL of a worker to the next claim of the task that it was running."""

    kills: int
    p50_s: float
    worst_s: float


def passes(ours: Ours, finished: int, backlog: int, step: Callable[[str], None]) -> Passes:
    """Fill the store, watch idle passes, empty Redis, and wait for all to be back.

    Raises:
        RuntimeError: a pass found something to do where nothing was.
        TimeoutError: the backlog was not back in time.
    """
    engine = ours.engine
    engine.init([_agent(n) for n in range(AGENTS)])
    rescuer = engine.rescuer("benchmark", eager=True)
    rescuer.tick()
    step(f"store {finished:,} finished tasks")
    done = _submit(engine, 0, Priority.NORMAL)
    claim = engine.store.claim(done.id, done.fence, "benchmark")
    assert claim is not None, "nobody else is here"
    engine.store.finish(claim, None)
    _copy(engine, [done.id], finished, "f", publish=False)
    step(f"queue {backlog:,} more")
    lanes = [(n, priority) for n in range(AGENTS) for priority in Priority]
    queued = [_submit(engine, n, priority).id for n, priority in lanes]
    _copy(engine, queued, backlog, "b", publish=True)
    step("idle passes")
    idle_ms = []
    for _ in range(PASSES):
        began = time.perf_counter()
        counts = rescuer.tick()
        idle_ms.append((time.perf_counter() - began) * 1e3)
        if counts is None or counts.any:
            raise RuntimeError(f"not an idle pass: {counts}")
        time.sleep(PAUSE_S)
    step("FLUSHALL")
    whole = backlog + len(queued)
    engine.redis.flushall()
    began = time.perf_counter()
    while engine.service.queues()["queue_size"] < whole:
        rescuer.tick()
        if time.perf_counter() - began > PATIENCE_S + whole / 100:
            raise TimeoutError("the backlog did not come back")
    recovery_s = time.perf_counter() - began
    rescuer.release()
    return Passes(finished, backlog, median(idle_ms), max(idle_ms), recovery_s * 10_000 / whole)


def elsewhere(ours: Ours, kills: int, log_file: Path, step: Callable[[str], None]) -> Elsewhere:
    """Kill the worker of a task that runs, as often as asked; another one waits each time.

    Raises:
        TimeoutError: the other one did not take the task.
    """
    waits_s = []
    for n in range(kills):
        step(f"kill {n + 1} of {kills}")
        with _started(ours, log_file) as first, _started(ours, log_file) as second:
            ours.wait_until_live(2)
            task_id = ours.submit_holding(HOLD_S)
            victim = ours.wait_until_claimed(task_id, attempts=1, timeout_s=PATIENCE_S)
            killed = next(child for child in (first, second) if f"/{child.pid}/" in victim)
            killed_at = time.monotonic()
            os.killpg(killed.pid, signal.SIGKILL)
            ours.wait_until_claimed(task_id, attempts=2, timeout_s=PATIENCE_S)
            waits_s.append(time.monotonic() - killed_at)
        ours.cancel(task_id)
    return Elsewhere(kills, median(waits_s), max(waits_s))


@contextmanager
def _started(ours: Ours, log_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with one slot, killed at the end: nobody waits for what it holds."""
    argv = [sys.executable, "-m", "celery", "-A", ours.module, "worker", "--concurrency=1"]
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            leashed(argv),
            cwd=ROOT,
            env=os.environ | ours.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=START_S)


def _agent(n: int) -> Agent:
    agent = Agent(role=f"bench_{n}", name=f"Bench {n}", capabilities=[f"bench_{n}"], slots=8)

    @agent.handles(f"bench_{n}")
    def bench(context: Any, payload: Nothing) -> None:
        """Never run."""

    return agent


def _submit(engine: Engine, n: int, priority: Priority) -> Task:
    request = Request(type=f"bench_{n}", payload={}, priority=priority)
    task, _ = engine.coordinator.submit(request)
    assert task.state is State.QUEUED
    return task


def _copy(engine: Engine, task_ids: list[str], count: int, prefix: str, *, publish: bool) -> None:
    """Store so many copies of tasks."""
    tasks = engine.database["tasks"]
    samples = engine.store.raw(task_ids)
    for start in range(0, count, CHUNK):
        documents = [
            samples[n % len(samples)] | {"_id": f"{prefix}{n:031x}", "idempotency": f"{prefix}{n}"}
            for n in range(start, min(start + CHUNK, count))
        ]
        tasks.insert_many(documents)
        if publish:
            engine.publisher.publish_bulk([Task.from_document(each) for each in documents])
