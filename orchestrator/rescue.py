"""Mending what a dead process left undone.

One process at a time runs a pass each second, under a lock in MongoDB (Redis may be what
is broken). A pass is loops over what is due by an index, each bounded, each step a
compare-and-set that anybody may repeat; it may die at any line.

Collection `locks`: {_id: "rescue", holder, at}. Collection `epochs`: {_id: "redis", n,
raised_at}: the number of times that Redis is known to have lost its memory, and when that was
noticed last.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.broker import Publisher, published_at
from orchestrator.clock import JUMP_S, Clock
from orchestrator.context import Sessions
from orchestrator.coordinator import Coordinator
from orchestrator.customers import Customers
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.logs import log
from orchestrator.outbox import Outbox
from orchestrator.registry import Load, Registry
from orchestrator.router import Router
from orchestrator.settings import Settings
from orchestrator.tasks import LONG_AGO, Priority, State, Task, TaskStore, store_errors
from orchestrator.timers import Timers
from orchestrator.triggers import Triggers
from orchestrator.workflows import Workflows

BATCH = 200
LOOKS = 1000  # at tasks of one state, most of them healthy
BULK = 1000
MOST = 10_000  # tasks that one pass publishes again
# Messages published this close to the oldest in a queue may still be on their way.
IN_FLIGHT_S = 1.0
ERASURES = 5  # gone on with in one pass
SESSIONS = 20  # removed in one pass
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
    recalled: int = 0
    advanced: int = 0
    started: int = 0
    kept: int = 0
    fired: int = 0
    erased_on: int = 0
    let_go: int = 0

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
        workflows: Workflows,
        triggers: Triggers,
        timers: Timers,
        customers: Customers,
        sessions: Sessions,
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
        self._workflows = workflows
        self._triggers = triggers
        self._timers = timers
        self._customers = customers
        self._sessions = sessions
        self._settings = settings
        self._holder = holder
        self._patience_s = settings.lease_s / 4 if eager else settings.lease_s / 2
        self._held = False
        self._away_at = float("-inf")
        self._looked_ahead_at = float("-inf")
        self._epoch = 0
        self._raised_at = LONG_AGO

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
            self._queued,
            partial(self._lost, load),
            partial(self._future, load),
            self._blocked,
            self._waiting,
            self._outgoing,
            self._runs,
            self._timers_due,
            self._erasures,
            self._let_go,
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

    # -- queues ----------------------------------------------------------------------

    def _mind_the_epoch(self, load: Load, counts: Counts) -> None:
        """Notice that Redis lost its memory, and when; `_lost` publishes what was in there."""
        with store_errors():
            known = self._epochs.find_one(EPOCH)
            found = load.epoch
            if known is None:
                # A new desk: what is queued on it was queued in the Redis that is there.
                self._epochs.update_one(EPOCH, {"$setOnInsert": {"n": 1}}, upsert=True)
                known = EPOCH | {"n": 1}
                if found is None and self._told_redis(1):
                    found = 1
            if found != known["n"]:
                # Gone, or from another life: whatever was queued under it may be gone too.
                self._epochs.update_one(
                    EPOCH | {"n": known["n"]},
                    {"$inc": {"n": 1}, "$set": {"raised_at": self._clock.now()}},
                )
                known = self._epochs.find_one(EPOCH) or known
                log.warning("rescue.epoch_raised", epoch=known["n"], found=load.epoch)
                if not self._told_redis(known["n"]):
                    return
        self._epoch, self._raised_at = known["n"], known.get("raised_at", LONG_AGO)

    def _told_redis(self, epoch: int) -> bool:
        try:
            self._registry.set_epoch(epoch)
        except BrokerUnavailable:
            return False
        return True

    def _lost(self, load: Load | None, counts: Counts) -> None:
        """Publish again what is queued and whose message is not where it should be.

        A lane (the messages of one queue and priority) is first in, first out. So whatever was
        published before the oldest message that it holds is not in it any more, and if it is
        empty, nothing is; but for what a worker has just taken. A healthy backlog of any length
        is left alone, and costs nothing.
        """
        if load is None:
            return
        now = self._clock.now()
        try:
            oldest = self._registry.oldest(list(load.queues))
        except BrokerUnavailable:
            return
        left = MOST
        for queue in load.queues:
            for priority in Priority:
                message = oldest[queue].get(priority)
                bound = max(self._moved_past(message, now), self._raised_at)
                left -= self._publish_again(queue, priority, bound, left, counts)
                if not left or not self._held:
                    return

    def _moved_past(self, oldest: str | None, now: dt.datetime) -> dt.datetime:
        """What was published to a lane before this is not in it."""
        bound = now - dt.timedelta(seconds=self._settings.republish_after_s)
        published = published_at(oldest) if oldest is not None else None
        if oldest is not None:
            held = dt.datetime.fromtimestamp(published or 0.0, dt.UTC)
            bound = min(bound, held - dt.timedelta(seconds=IN_FLIGHT_S))
        return bound

    def _publish_again(
        self, queue: str, priority: Priority, bound: dt.datetime, most: int, counts: Counts
    ) -> int:
        done = 0
        while done < most:
            wanted = min(BULK, most - done)
            found = self._store.published_before(queue, priority, bound, wanted)
            now = self._clock.now()
            lost = [task for task in found if self._is_due_again(task, now)]
            if not lost or not self._publish(lost, now):
                break
            self._store.published_again(lost, now, self._epoch)
            done += len(lost)
            forgotten = sum(self._was_forgotten(task) for task in lost)
            counts.republished += forgotten
            counts.published += len(lost) - forgotten
            # A bulk may take longer than the lock is kept without a sign.
            if len(lost) < wanted or not self._acquire():
                break
        return done

    def _was_forgotten(self, task: Task) -> bool:
        """Redis has lost its message with all others."""
        return (task.published_at or LONG_AGO) < self._raised_at and task.epoch < self._epoch

    def _is_due_again(self, task: Task, now: dt.datetime) -> bool:
        """Whether to publish a task whose message is gone once more: with growing pauses, where
        Redis has not lost it with all others."""
        if self._was_forgotten(task):
            return True
        settings = self._settings
        pause_s = min(
            settings.republish_after_s * 2.0 ** min(task.looks, 20), settings.republish_max_s
        )
        return (task.published_at or LONG_AGO) + dt.timedelta(seconds=pause_s) <= now

    def _publish(self, tasks: list[Task], now: dt.datetime) -> bool:
        try:
            self._publisher.publish_bulk([replace(task, published_at=now) for task in tasks])
        except BrokerUnavailable as error:
            log.warning("rescue.broker_unavailable", error=error.code)
            return False
        return True

    def _future(self, load: Load | None, counts: Counts) -> None:
        """Once a lease: what was written before the database's clock went back."""
        if self._clock.monotonic() - self._looked_ahead_at < self._settings.lease_s:
            return
        if self._is_disturbed():
            return
        self._looked_ahead_at = self._clock.monotonic()
        counts.recalled += self._store.recall_the_future(BATCH)
        if load is None:
            return
        now = self._clock.now()
        beyond = now + dt.timedelta(seconds=JUMP_S)
        for queue in load.queues:
            for priority in Priority:
                tasks = self._store.published_after(queue, priority, beyond, BULK)
                if tasks and self._publish(tasks, now):
                    self._store.published_again(tasks, now, self._epoch)
                    counts.recalled += len(tasks)

    # -- states ----------------------------------------------------------------------

    def _queued(self, counts: Counts) -> None:
        """Publish those whose pause is over; else they are due at their deadline only."""
        due = list(self._due(State.QUEUED, counts))
        now = self._clock.now()
        over: list[Task] = []
        others: list[Task] = []
        for task in due:
            is_over = task.run_after is not None and task.run_after <= now
            (over if is_over else others).append(task)
        if over and self._publish(over, now):
            self._store.retries_published(over, now, self._epoch)
            counts.published += len(over)
        # These are of an earlier release.
        self._store.look_again(*others)

    def _running(self, counts: Counts) -> None:
        if self._is_disturbed():
            return
        for task in self._store.due(State.RUNNING, BATCH):
            self._safely(partial(self._take_back, counts), task)

    def _is_disturbed(self) -> bool:
        """Live workers may not have had the chance to renew their leases."""
        disturbed_at = max(self._away_at, self._clock.jumped_at)
        return self._clock.monotonic() - disturbed_at < self._settings.lease_s

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

    def _runs(self, counts: Counts) -> None:
        counts.advanced += self._workflows.advance_due(BATCH)
        counts.kept += self._workflows.keep_results(BATCH)
        counts.started += self._triggers.fall_silent(BATCH)

    def _timers_due(self, counts: Counts) -> None:
        counts.fired += self._timers.fire_due(BATCH)

    def _erasures(self, counts: Counts) -> None:
        counts.erased_on += self._customers.rescue(ERASURES)

    def _let_go(self, counts: Counts) -> None:
        counts.let_go += self._sessions.let_go(SESSIONS)

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
