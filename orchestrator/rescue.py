"""Mending what a dead process left undone.

One process at a time runs a pass each second, under a lock in MongoDB (Redis may be what
is broken). A pass is loops over what is due by an index, each bounded, each step a
compare-and-set that anybody may repeat; it may die at any line.

Collection `locks`: {_id: "rescue", holder, at}. Collection `epochs`: {_id: "redis", n,
republished}: the number of times that Redis is known to have lost its memory, and the
last of them after which everything queued was published again.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.broker import Publisher
from orchestrator.clock import Clock
from orchestrator.coordinator import Coordinator
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.logs import log
from orchestrator.outbox import Outbox
from orchestrator.registry import Load, Registry
from orchestrator.router import Router
from orchestrator.settings import Settings
from orchestrator.tasks import State, Task, TaskStore, store_errors

BATCH = 200
LOOKS = 1000  # at tasks of one state, most of them healthy
BULK = 1000
# Messages published this close to one that was claimed may still be on their way.
IN_FLIGHT_S = 2.0
EPOCH = {"_id": "redis"}
LOCK = {"_id": "rescue"}


@dataclass
class Counts:
    """What one pass did."""

    republished: int = 0
    published: int = 0
    taken_back: int = 0
    promoted: int = 0
    resumed: int = 0
    expired: int = 0
    sent_on: int = 0

    @property
    def any(self) -> bool:
        """It did something."""
        return any(vars(self).values())


class Rescuer:
    """Runs passes while it holds the lock. One per worker process, in a thread of its own.

    `eager` rescuers (the orchestrator agent's) take a free lock at once, others only one
    that has been stale for a while.
    """

    def __init__(
        self,
        database: Database[dict[str, Any]],
        clock: Clock,
        store: TaskStore,
        coordinator: Coordinator,
        publisher: Publisher,
        registry: Registry,
        router: Router,
        outbox: Outbox,
        settings: Settings,
        *,
        holder: str,
        eager: bool,
    ) -> None:
        self._locks = database["locks"]
        self._epochs = database["epochs"]
        self._clock = clock
        self._store = store
        self._coordinator = coordinator
        self._publisher = publisher
        self._registry = registry
        self._router = router
        self._outbox = outbox
        self._settings = settings
        self._holder = holder
        self._patience_s = settings.lease_s / 4 if eager else settings.lease_s / 2
        self._held = False
        self._away_at = float("-inf")

    def tick(self) -> Counts | None:
        """One pass if the lock is ours, else None. Never raises for an outage.

        After an outage of MongoDB or a jump of its clock nothing is taken back for one full
        lease: live workers could not renew, and must get the chance.
        """
        try:
            self._store.read_clock()
            if not self._acquire():
                return None
            counts = self.run_once()
        except StoreUnavailable as error:
            log.warning("rescue.store_unavailable", error=error.code)
            self._held = False
            self._away_at = self._clock.monotonic()
            return None
        if counts.any:
            log.info("rescue.pass", **vars(counts))
        return counts

    def run_once(self) -> Counts:
        """One bounded pass over everything that may need mending."""
        counts = Counts()
        load = self._load()
        steps: list[Callable[[Counts], None]] = [
            self._running,
            self._retries,
            partial(self._queued, load),
            self._blocked,
            self._waiting,
            self._outgoing,
        ]
        if load is not None:
            steps.insert(0, partial(self._mind_the_epoch, load))
        for step in steps:
            try:
                step(counts)
            except StoreUnavailable:
                raise
            except Exception:
                # What one step stumbles over must not keep the others from their work.
                log.exception("rescue.step_failed")
        return counts

    def release(self) -> None:
        """Give the lock up, so that another takes it at once."""
        if self._held:
            with store_errors():
                self._locks.delete_one(LOCK | {"holder": self._holder})
            self._held = False

    def _acquire(self) -> bool:
        now = self._clock.now()
        patience = dt.timedelta(seconds=self._patience_s)
        stale = now - patience
        with store_errors():
            lock = self._locks.find_one(LOCK)
            if lock is None:
                try:
                    self._locks.insert_one(LOCK | {"holder": self._holder, "at": now})
                except DuplicateKeyError:
                    return False
                mine = True
            elif lock["holder"] != self._holder and stale < lock["at"] < now + patience:
                mine = False
            else:
                if now - lock["at"] > dt.timedelta(seconds=self._settings.lease_s):
                    # Nobody was there for a whole lease: maybe nobody could renew, either.
                    self._away_at = self._clock.monotonic()
                mine = bool(
                    self._locks.update_one(
                        LOCK | {"holder": lock["holder"], "at": lock["at"]},
                        {"$set": {"holder": self._holder, "at": now}},
                    ).matched_count
                )
        if mine and not self._held:
            log.info("rescue.lock_taken", holder=self._holder)
        self._held = mine
        return mine

    def _load(self) -> Load | None:
        try:
            return self._router.load(fresh=True)
        except BrokerUnavailable as error:
            log.warning("rescue.broker_unavailable", error=error.code)
            return None

    # -- Redis lost its memory -------------------------------------------------------

    def _mind_the_epoch(self, load: Load, counts: Counts) -> None:
        with store_errors():
            known = self._epochs.find_one(EPOCH)
            if known is None:
                self._epochs.update_one(
                    EPOCH, {"$setOnInsert": {"n": 0, "republished": 0}}, upsert=True
                )
                known = EPOCH | {"n": 0, "republished": 0}
            if load.epoch != known["n"]:
                # Gone, or from another life: whatever was queued under it may be gone too.
                self._epochs.update_one(EPOCH | {"n": known["n"]}, {"$inc": {"n": 1}})
                known = self._epochs.find_one(EPOCH) or known
                log.warning("rescue.epoch_raised", epoch=known["n"], found=load.epoch)
                try:
                    self._registry.set_epoch(known["n"])
                except BrokerUnavailable:
                    return
            if known["republished"] < known["n"]:
                self._republish_all(known["n"], counts)

    def _republish_all(self, epoch: int, counts: Counts) -> None:
        lost = self._store.queued_before(epoch)
        while tasks := list(islice(lost, BULK)):
            try:
                self._publisher.publish_bulk(tasks)
            except BrokerUnavailable:
                return
            self._store.published(tasks, epoch)
            counts.republished += len(tasks)
            # A bulk may take longer than the lock is kept without a sign.
            if not self._acquire():
                return
        with store_errors():
            self._epochs.update_one(EPOCH, {"$max": {"republished": epoch}})

    # -- states ----------------------------------------------------------------------

    def _retries(self, counts: Counts) -> None:
        for task in self._store.retries_due(BATCH):
            if task.state is State.QUEUED:
                self._publish(task, counts)

    def _queued(self, load: Load | None, counts: Counts) -> None:
        healthy = []
        for task in self._due(State.QUEUED, counts):
            if load is None:
                continue  # only deadlines can be kept
            if self._is_missing(task, load):
                self._publish(task, counts)
            else:
                healthy.append(task)
        self._store.look_again(*healthy)

    def _is_missing(self, task: Task, load: Load) -> bool:
        """Whether a queued task's message seems to be gone.

        A healthy backlog is left alone: its messages are behind those that are claimed. The
        message is missing where its priority's list is empty, or where one that was published
        there later has been claimed.
        """
        if not load.queues.get(task.queue, {}).get(task.priority):
            return True
        published = task.published_at.timestamp() if task.published_at else 0.0
        return published + IN_FLIGHT_S < load.passed(task.queue, task.priority)

    def _publish(self, task: Task, counts: Counts) -> None:
        epoch = self._router.epoch
        now = self._clock.now()
        try:
            self._publisher.publish([replace(task, published_at=now)])
        except BrokerUnavailable:
            return
        self._store.look_again(task, also={"published_at": now, "epoch": max(epoch, 0)})
        counts.published += 1

    def _running(self, counts: Counts) -> None:
        disturbed_at = max(self._away_at, self._clock.jumped_at)
        if self._clock.monotonic() - disturbed_at < self._settings.lease_s:
            return
        for task in self._store.due(State.RUNNING, BATCH):
            self._safely(partial(self._take_back, counts), task)

    def _take_back(self, counts: Counts, task: Task) -> None:
        taken = self._store.take_back(task, self._router.epoch)
        if taken is None:
            return
        counts.taken_back += 1
        log.warning("task.taken_back", task_id=task.id, worker=task.worker, crashes=taken.crashes)
        self._after_take_back(taken)

    def _after_take_back(self, task: Task) -> None:
        if task.state.final:
            self._coordinator.settle(task)
        elif task.cancel:
            self._coordinator.cancel(task.id)
        else:
            self._coordinator.publish(task)

    def _blocked(self, counts: Counts) -> None:
        due = list(self._due(State.BLOCKED, counts))
        for key in {task.key for task in due if task.key is not None}:
            counts.promoted += self._coordinator.promote(key)
        # Those that were promoted have another fence by now, and are left alone.
        self._store.look_again(*due)

    def _waiting(self, counts: Counts) -> None:
        for task in self._due(State.WAITING, counts):
            self._safely(partial(self._see_to, counts), task)
            self._store.look_again(task)

    def _see_to(self, counts: Counts, task: Task) -> None:
        if task.cancel:
            self._coordinator.cancel(task.id)
            return
        if self._store.existing(task.child_ids()) != set(task.child_ids()):
            self._coordinator.hand_over(task)
        counts.resumed += self._coordinator.resume(task)

    def _outgoing(self, counts: Counts) -> None:
        counts.sent_on += self._outbox.rescue(BATCH)

    def _due(self, state: State, counts: Counts) -> Iterator[Task]:
        """Due tasks of a state; those past their deadline are cancelled on the way."""
        now = self._clock.now()
        for task in self._store.due(state, LOOKS):
            if task.deadline is not None and task.deadline <= now:
                self._safely(self._expire, task)
                counts.expired += 1
            else:
                yield task

    def _expire(self, task: Task) -> None:
        self._coordinator.cancel(task.id, "deadline_exceeded", "Its deadline has passed.")

    def _safely(self, step: Callable[[Task], object], task: Task) -> None:
        """What is done for one task, and must not keep the pass from the others."""
        try:
            step(task)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error("rescue.task_failed", task_id=task.id, error=type(error).__name__)
