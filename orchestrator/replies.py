"""Waiting for tasks to end, without asking the store in a loop per request.

One listener per process hears the ids of finished tasks by Redis' pub/sub, and wakes who
waits for them. Pub/sub forgets while disconnected, so one sweep a second asks the store,
in one query, about everything that is still waited for.

An announcement is a task's id and a mark of its ordering key. That may hold a name that a client
chose, even a phone number, whose plain hash anybody could look up: the mark is made with a key of
this installation.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable

import pymongo
import redis

from orchestrator.errors import StoreUnavailable
from orchestrator.keys import SigningKey
from orchestrator.logs import log
from orchestrator.settings import Settings
from orchestrator.tasks import Task, TaskStore

SWEEP_S = 1.0
Listener = Callable[[str, str], None]  # task id, mark of its ordering key


class Replies:
    """Announce ends of tasks, and wait for them. Thread-safe; starts listening at first use."""

    def __init__(
        self, client: redis.Redis, store: TaskStore, key: SigningKey, settings: Settings
    ) -> None:
        self._redis = client
        self._store = store
        self._key = key
        self._settings = settings
        self._channel = f"{settings.key_prefix}:finished"
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._waits = 0
        self._closing = False
        self._listeners: set[Listener] = set()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._quiet_until = 0.0

    def announce(self, task: Task) -> None:
        """Tell every front door that a task is final; a lost message is made good by the sweep."""
        self._publish(f"{task.id} {self._told(task.key) if task.key else ''}")

    def announce_news(self, key: str) -> None:
        """Tell every front door that something has come to be told of an ordering key."""
        self._publish(f" {self._told(key)}")

    def mark(self, key: str) -> str:
        """What stands for an ordering key in an announcement.

        Raises:
            StoreUnavailable: the installation's key has not been read yet, and cannot be.
        """
        return self._key.sign(key)[:16]

    def _told(self, key: str) -> str:
        try:
            with pymongo.timeout(self._settings.store_timeout_s):
                return self.mark(key)
        except StoreUnavailable as error:
            log.warning("reply.announced_without_mark", error=error.code)
            return ""

    def _publish(self, announcement: str) -> None:
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._redis.publish(self._channel, announcement)
        except redis.RedisError as error:
            self._quiet_until = time.monotonic() + SWEEP_S
            log.warning("reply.announce_failed", error=type(error).__name__)

    def listen(self, listener: Listener) -> None:
        """Have a function called at each announcement; it must not block."""
        with self._lock:
            self._listeners.add(listener)
            self._start()

    def close_waits(self) -> None:
        """End all waits, and those to come, at once: the process is about to stop."""
        with self._lock:
            self._closing = True
            for waits in self._waiting.values():
                for ended in waits:
                    ended.set()

    def wait(self, task_id: str, timeout_s: float) -> Task:
        """The task once it is final, or as it stands when the time is over.

        The time is over at once where as many wait as this process has room for.

        Raises:
            TaskNotFound: no such task.
            StoreUnavailable: it cannot be read.
        """
        ended = threading.Event()
        with self._lock:
            self._waiting[task_id].add(ended)
            self._waits += 1
            if self._closing or self._waits > self._settings.max_waits:
                timeout_s = 0
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
                self._waits -= 1
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
            self._publish("")  # wakes the listener
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

    def _announced(self, announcement: str) -> None:
        task_id, _, mark = announcement.partition(" ")
        self._wake([task_id])
        for listener in list(self._listeners):
            listener(task_id, mark)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(self._channel)
                    while not self._stopped.is_set():
                        message = pubsub.get_message(timeout=SWEEP_S)
                        if message is not None:
                            self._announced(message["data"])
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
