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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import redis

from benchmarks.bare import QUEUE, URL_VARIABLE, make_bare_app
from deploy.servers import leashed
from orchestrator.engine import Engine
from orchestrator.errors import NoCapableAgent
from orchestrator.registry import lane
from orchestrator.settings import Settings
from orchestrator.tasks import Priority, Request

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

    def __init__(self, redis_url: str, mongodb_uri: str) -> None:
        self._settings = Settings(redis_url=redis_url, mongodb_uri=mongodb_uri)
        self._engine = Engine(self._settings)

    def environment(self) -> dict[str, str]:
        return {"REDIS_URL": self._settings.redis_url, "MONGODB_URI": self._settings.mongodb_uri}

    def wait_until_declared(self) -> None:
        """Until a worker that was started has written what acceptance needs.

        Raises:
            TimeoutError: none did.
        """
        deadline = time.monotonic() + START_S
        while not self._declared():
            if time.monotonic() > deadline:
                raise TimeoutError(f"our worker did not start within {START_S:.0f} s")
            time.sleep(POLL_S)

    def _declared(self) -> bool:
        """Whether a worker has written what the front desk must know to accept a task."""
        try:
            return bool(self._engine.declarations.capable("noop", ["nothing"]))
        except NoCapableAgent:
            return False

    def submit(self, priority: Priority = Priority.NORMAL) -> str:
        request = Request(type="noop", payload={}, priority=priority)
        task, _ = self._engine.coordinator.submit(request)
        return task.id

    def waited_ms(self, task_id: str) -> float:
        """From a task's acceptance to its claim by a worker."""
        task = self._engine.store.get(task_id)
        assert task.started_at is not None, "it was waited for"
        return (task.started_at - task.created_at).total_seconds() * 1e3

    def wait(self, task_id: str) -> None:
        if not self._engine.replies.wait(task_id, REPLY_TIMEOUT_S).state.final:
            raise TimeoutError(task_id)

    def queued(self) -> int:
        queue = self._settings.queue("noop")
        return sum(int(self._engine.redis.llen(lane(queue, priority))) for priority in Priority)

    def done_at(self, task_ids: list[str]) -> list[float]:
        tasks = self._engine.store.many(task_ids).values()
        return [task.finished_at.timestamp() for task in tasks if task.finished_at is not None]

    def close(self) -> None:
        self._engine.close()


class Bare:
    """`delay` and `get`, as users of Celery write it."""

    name = "bare Celery"
    module = "benchmarks.bare"

    def __init__(self, url: str) -> None:
        self._url = url
        self._app = make_bare_app(url)
        self._redis = redis.Redis.from_url(url)
        self._waiting: dict[str, Any] = {}

    def environment(self) -> dict[str, str]:
        return {URL_VARIABLE: self._url}

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
