"""What is compared: our front desk and bare Celery, seen alike.

A side submits no-op tasks, starts a worker for them, and tells when each was done. Both
sides' workers stamp that time just before they write the result, so that a rate from the
first to the last of the stamps leaves out how long a worker takes to start.
"""

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import redis

from benchmarks.bare import EVENTS_VARIABLE, QUEUE, URL_VARIABLE, make_bare_app
from deploy.servers import leashed
from orchestrator.engine import Engine
from orchestrator.errors import NoCapableAgent
from orchestrator.registry import lane
from orchestrator.settings import Settings
from orchestrator.tasks import Priority, Request

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
REPLY_TIMEOUT_S = 30.0
START_S = 60.0
POLL_S = 0.05


class Side(Protocol):
    """One of the two."""

    name: str
    module: str  # what `celery -A` is given

    def environment(self) -> dict[str, str]:
        """What its worker needs to know."""

    def submit(self) -> str:
        """Submit one task; returns its id."""

    def wait(self, task_id: str) -> None:
        """Until its result is here."""

    def queued(self) -> int:
        """How many tasks no worker has taken."""

    def done_at(self, task_ids: list[str]) -> list[float]:
        """When these were done, in seconds; those that are not are left out."""

    def close(self) -> None:
        """Close connections."""


class Ours:
    """Submit, wait and read as the front door does."""

    name = "ours"
    module = "benchmarks.ours"

    def __init__(self, redis_url: str, mongodb_uri: str, database: str = "bench") -> None:
        self._settings = Settings(
            redis_url=redis_url, mongodb_uri=mongodb_uri, mongodb_database=database
        )
        self.engine = Engine(self._settings)

    def environment(self) -> dict[str, str]:
        return {
            "REDIS_URL": self._settings.redis_url,
            "MONGODB_URI": self._settings.mongodb_uri,
            "MONGODB_DATABASE": self._settings.mongodb_database,
        }

    def wait_until_declared(self) -> None:
        """Until a worker that was started has written what acceptance needs.

        Raises:
            TimeoutError: none did.
        """
        _until(self._declared, START_S, "our worker did not start")

    def _declared(self) -> bool:
        """Whether a worker has written what the front desk must know to accept a task."""
        try:
            return bool(self.engine.declarations.capable("noop", ["nothing"]))
        except NoCapableAgent:
            return False

    def wait_until_live(self, workers: int) -> None:
        """Until so many workers can take a task.

        Raises:
            TimeoutError: they were not there in time.
        """
        self.wait_until_declared()
        _until(
            lambda: len(self.engine.router.load(fresh=True).live("noop_agent")) >= workers,
            START_S,
            f"{workers} workers did not start",
        )

    def submit_relay(self, priority: Priority) -> str:
        """Submit a task that hands over another one, and goes on with its result."""
        task, _ = self.engine.coordinator.submit(Request("relay", {}, priority=priority))
        return task.id

    def relayed_ms(self, task_id: str) -> float:
        """From a task's first claim by a worker to its end."""
        task = self.engine.store.get(task_id)
        begun = next(each["at"] for each in task.timeline if each["event"] == "claimed")
        assert task.finished_at is not None, "it was waited for"
        return (task.finished_at - begun).total_seconds() * 1e3

    def submit_holding(self, seconds: float) -> str:
        """Submit a task that holds its slot for so long."""
        task, _ = self.engine.coordinator.submit(Request("hold", {"seconds": seconds}))
        return task.id

    def wait_until_claimed(self, task_id: str, *, attempts: int, timeout_s: float) -> str:
        """Until a worker has the task, for the so-manieth time; returns which.

        Raises:
            TimeoutError: none took it.
        """

        def holder() -> str | None:
            task = self.engine.store.get(task_id)
            return task.worker if task.attempts == attempts else None

        return _until(holder, timeout_s, f"{task_id} was not claimed")

    def cancel(self, task_id: str) -> None:
        """Nobody needs the task any more."""
        self.engine.coordinator.cancel(task_id)

    def submit(self, priority: Priority = Priority.NORMAL) -> str:
        request = Request(type="noop", payload={}, priority=priority)
        task, _ = self.engine.coordinator.submit(request)
        return task.id

    def waited_ms(self, task_id: str) -> float:
        """From a task's acceptance to its claim by a worker."""
        task = self.engine.store.get(task_id)
        assert task.started_at is not None, "it was waited for"
        return (task.started_at - task.created_at).total_seconds() * 1e3

    def wait(self, task_id: str) -> None:
        if not self.engine.replies.wait(task_id, REPLY_TIMEOUT_S).state.final:
            raise TimeoutError(task_id)

    def queued(self) -> int:
        queue = self._settings.queue("noop")
        return sum(int(self.engine.redis.llen(lane(queue, priority))) for priority in Priority)

    def done_at(self, task_ids: list[str]) -> list[float]:
        tasks = self.engine.store.many(task_ids).values()
        return [task.finished_at.timestamp() for task in tasks if task.finished_at is not None]

    def close(self) -> None:
        self.engine.close()


class Bare:
    """`delay` and `get`, as users of Celery write it."""

    name = "bare Celery"
    module = "benchmarks.bare"

    def __init__(self, url: str, *, events: bool = True) -> None:
        self._url = url
        self._events = events
        self._app = make_bare_app(url, events=events)
        self._redis = redis.Redis.from_url(url)
        self._waiting: dict[str, Any] = {}

    def environment(self) -> dict[str, str]:
        return {URL_VARIABLE: self._url, EVENTS_VARIABLE: "yes" if self._events else "no"}

    def submit(self) -> str:
        result = self._app.tasks["noop"].delay()
        self._waiting[result.id] = result
        return str(result.id)

    def wait(self, task_id: str) -> None:
        self._waiting.pop(task_id).get(timeout=REPLY_TIMEOUT_S)

    def queued(self) -> int:
        return int(self._redis.llen(QUEUE))

    def done_at(self, task_ids: list[str]) -> list[float]:
        backend = self._app.backend
        stored = self._redis.mget([backend.get_key_for_task(task_id) for task_id in task_ids])
        metas = [backend.decode_result(value) for value in stored if value is not None]
        self._waiting.clear()
        return [dt.datetime.fromisoformat(meta["date_done"]).timestamp() for meta in metas]

    def close(self) -> None:
        self._app.close()
        self._redis.close()


def _until(condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """The first true value of a condition; TimeoutError, saying what, if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {timeout_s:.0f} s")
        time.sleep(POLL_S)
    return value


@contextmanager
def worker(side: Side, slots: int, log_file: Path) -> Iterator[None]:
    """A worker of a side, for a while."""
    argv = [sys.executable, "-m", "celery", "-A", side.module, "worker", f"--concurrency={slots}"]
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            leashed(argv),
            cwd=ROOT,
            env=os.environ | side.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def finish_times(side: Side, task_ids: list[str], timeout_s: float) -> list[float]:
    """When all of these tasks were done, in order.

    While they wait in the queue only its length is asked for, alike on both sides.

    Raises:
        TimeoutError: some were not done.
    """
    deadline = time.monotonic() + timeout_s
    times: list[float] = []
    while len(times) < len(task_ids):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{side.name}: {len(times)} of {len(task_ids)} tasks done")
        time.sleep(POLL_S)
        if side.queued() == 0:
            times = side.done_at(task_ids)
    return sorted(times)
