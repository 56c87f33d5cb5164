"""Waiting for tasks to end, without asking the store in a loop per request.

One listener per process hears the ids of finished tasks by Redis' pub/sub, and wakes who
waits for them. Pub/sub forgets while disconnected, so one sweep a second asks the store,
in one query, about everything that is still waited for.
"""

import threading
import time
from collections import defaultdict

import pymongo
import redis

from orchestrator.logs import log
from orchestrator.settings import Settings
from orchestrator.tasks import Task, TaskStore

SWEEP_S = 1.0


class Replies:
    """Announce ends of tasks, and wait for them. Thread-safe; starts listening at first use."""

    def __init__(self, client: redis.Redis, store: TaskStore, settings: Settings) -> None:
        self._redis = client
        self._store = store
        self._settings = settings
        self._channel = f"{settings.key_prefix}:finished"
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._quiet_until = 0.0

    def announce(self, task_id: str) -> None:
        """Tell every front door that a task is final; a lost message is made good by the sweep."""
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._redis.publish(self._channel, task_id)
        except redis.RedisError as error:
            self._quiet_until = time.monotonic() + SWEEP_S
            log.warning("reply.announce_failed", task_id=task_id, error=type(error).__name__)

    def wait(self, task_id: str, timeout_s: float) -> Task:
        """The task once it is final, or as it stands when the time is over.

        Raises:
            TaskNotFound: no such task.
            StoreUnavailable: it cannot be read.
        """
        ended = threading.Event()
        with self._lock:
            self._waiting[task_id].add(ended)
            self._start()
        try:
            # Read after signing up: an end between the two is not missed.
            task = self._read(task_id)
            if task.state.final or timeout_s <= 0:
                return task
            ended.wait(timeout_s)
            return self._read(task_id)
        finally:
            with self._lock:
                self._waiting[task_id].discard(ended)
                if not self._waiting[task_id]:
                    del self._waiting[task_id]

    def _read(self, task_id: str) -> Task:
        # A store that hangs must not hold the caller far beyond its wait.
        with pymongo.timeout(self._settings.store_timeout_s):
            return self._store.get(task_id)

    def stop(self) -> None:
        """End the listener and the sweep, before the client is closed under them."""
        self._stopped.set()
        if self._threads:
            self.announce("")  # wakes the listener
        for thread in self._threads:
            thread.join(timeout=2 * SWEEP_S)

    def _start(self) -> None:
        if self._threads:
            return
        for target in (self._listen, self._sweep):
            thread = threading.Thread(target=target, name=f"replies-{target.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _wake(self, task_ids: list[str]) -> None:
        with self._lock:
            for task_id in task_ids:
                for ended in self._waiting.get(task_id, ()):
                    ended.set()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(self._channel)
                    while not self._stopped.is_set():
                        message = pubsub.get_message(timeout=SWEEP_S)
                        if message is not None:
                            self._wake([message["data"]])
            except Exception as error:
                # Whatever it was: without this thread nobody here hears of an end again.
                log.warning("reply.listener_lost", error=type(error).__name__)
                self._stopped.wait(SWEEP_S)

    def _sweep(self) -> None:
        while not self._stopped.wait(SWEEP_S):
            with self._lock:
                waited_for = list(self._waiting)
            if not waited_for:
                continue
            try:
                self._wake(self._store.final_among(waited_for))
            except Exception as error:
                log.warning("reply.sweep_failed", error=type(error).__name__)
