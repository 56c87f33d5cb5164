"""Agents as plain Celery workers.

Keeps secret what Celery is to us: it brings (task id, fence) to a free slot. All else is
here: the claim, the handler, what becomes of its result, the lease, the heartbeat.

`make_app` builds an agent's Celery app. A `Runtime` lives in each process that runs tasks
(the worker itself with threads, each child with prefork) and has four threads: one
renews the leases of all its tasks in one write, one tells the registry how it is, one runs
the rescuer when the lock is free, one watches time limits and requests to stop. None of them
waits for another, or for a task.

How a process ends: by itself, when it was asked to stop and has finished what it held; or
within the grace time, when it has handed back what it could not finish (a second request does
so at once); or with EX_STUCK, when a handler overran its hard limit: no thread can be ended
alone, so it hands back the others' tasks, and its supervisor starts it again.
"""

import contextlib
import faulthandler
import logging
import mmap
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

import bson
import click
from celery import Celery, platforms, signals
from celery.apps.worker import Worker as CeleryWorker
from celery.worker import state as celery_state
from celery.worker.consumer import Consumer as CeleryConsumer
from click.core import ParameterSource
from kombu import Exchange, Queue
from pydantic import BaseModel, ValidationError
from pymongo.errors import ConnectionFailure

from orchestrator import logs, metrics
from orchestrator.broker import configure
from orchestrator.context import Writer
from orchestrator.coordinator import ChildResult
from orchestrator.declarations import Agent, TaskType
from orchestrator.engine import Engine, installed_version
from orchestrator.errors import (
    BadSettings,
    BrokerUnavailable,
    Invalid,
    OrchestratorError,
    RetryLater,
    StaleAttempt,
    StaleContext,
    StoreUnavailable,
    TaskError,
    Unavailable,
)
from orchestrator.logs import log
from orchestrator.registry import Heartbeat
from orchestrator.settings import Settings, current, is_loopback
from orchestrator.slots import Attempt, Slots
from orchestrator.tasks import UNFIT, Claim, Document, Request, Task, new_token

T = TypeVar("T")

ACCEPT_SCHEDULED = "accept_scheduled"
STALE_CONTEXT_TRIES = 20
MEAN_OVER_S = 60.0
# Events wait for others, to leave in one message; nobody looks at Flower more often.
EVENTS_PAUSE_S = 0.1
# Between two tries to reach Redis.
RECONNECT_S = 1.0
# Heartbeats that the consumer may miss before its worker counts as wedged.
CONSUMER_PATIENCE = 5
# Between two looks at time limits and at requests to stop.
WATCH_S = 0.2
# A process whose threads do not get to run for this long (a handler that holds Python's lock
# in C code) ends: nothing in it could look at a limit. Longer where `wedged_after_s` says so.
WEDGED_S = 60.0
# What a prefork pool's children may take to end after the grace time.
CHILDREN_S = 3.0
# The exit status of a process that was given up with a handler: sysexits.h's EX_SOFTWARE.
EX_STUCK = 70


@dataclass(frozen=True)
class HandOver:
    """Returned by a handler that needs other agents: it is run again with their results.

    `memory` is given back to it as `context.memory`; it is kept in the task.
    """

    children: list[Request]
    memory: Document = field(default_factory=dict)


@dataclass
class TaskContext:
    """What a handler is given beside its payload."""

    task: Task
    engine: Engine
    children: list[ChildResult]
    memory: Document
    stop_at: float = float("inf")  # the soft time limit, on the monotonic clock
    stop_seen: bool = field(default=False, init=False)

    @property
    def phase(self) -> int:
        """How many hand-overs came back: 0 on the first run."""
        return 0 if self.task.handover is None else int(self.task.handover["phase"])

    @property
    def writer(self) -> Writer:
        """This task's agent as a writer of contexts, with the shared keys that it declared.

        For `engine.sessions.commit` (a turn) and `engine.sessions.update` (anything else).
        """
        agent = self.engine.declarations.agent(self.task.agent)
        return Writer(agent.agent_id, agent.shares)

    def progress(self, **facts: Any) -> None:
        """Tell those who watch the task how far it is: `task.progress` among its events."""
        self.engine.store.note(self.task, "progress", facts)

    def should_stop(self) -> bool:
        """Somebody cancelled the task, its deadline has passed, or this attempt has run past
        its soft time limit: return soon.

        A handler that was told so has nothing of what it returns counted: its task ends as
        cancelled, or the attempt as a failure. One that never asked has its result count.
        """
        deadline = self.task.deadline
        late = deadline is not None and self.engine.clock.now() > deadline
        late = late or self.engine.clock.monotonic() > self.stop_at
        self.stop_seen = late or self.engine.store.get(self.task.id).cancel
        return self.stop_seen


class AttemptFailed(Exception):
    """What Celery and Flower see of a failed attempt: its code."""


class StopRequest:
    """How urgently a worker was asked to stop, for itself and for the children that it forks.

    Shared memory, because a child's handler may keep it from any signal or pipe.
    """

    def __init__(self) -> None:
        self._level = mmap.mmap(-1, 1)

    @property
    def level(self) -> int:
        """0: go on; 1: finish, within the grace time; 2: end now."""
        return self._level[0]

    def ask(self, *, at_once: bool = False) -> None:
        """Ask once more. Safe in a signal's handler."""
        self._level[0] = 2 if at_once else min(2, self.level + 1)


class Runtime:
    """Runs tasks in this process and keeps their leases."""

    def __init__(
        self,
        settings: Settings,
        agents: Sequence[Agent],
        node: str,
        slots: dict[str, int],
        stop: StopRequest,
        *,
        watches_consumer: bool,
    ) -> None:
        self.engine = Engine(settings)
        self._settings = settings
        self._agents = agents
        self._node = node
        self._slots = slots
        # Unique for ever: a pid comes again, and on another host at the same time.
        self.worker = f"{node}/{os.getpid()}/{secrets.token_hex(4)}"
        self.metrics_address: str | None = None
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._lock = threading.Lock()
        self._holds = Slots()
        self._outcomes: Counter[str] = Counter()
        self._run_times: deque[tuple[float, float]] = deque(maxlen=1000)
        self._stop = stop
        self._leave_by = float("inf")
        self._leaving = threading.Event()  # no new task; what is held is finished
        self._stopping = threading.Event()  # nothing any more
        self._threads: list[threading.Thread] = []
        # A prefork child has none: its parent consumes.
        self._watches_consumer = watches_consumer
        self._consumer_seen: float | None = None
        eager = any(agent.role == "orchestrator" for agent in agents)
        self._rescuer = self.engine.rescuer(self.worker, eager=eager)
        self._random = random.Random()

    # -- its threads -----------------------------------------------------------------

    def start(self) -> None:
        """Declare the agents, waiting for MongoDB as long as it takes, and start the threads."""
        self._until_stored("init", lambda: self.engine.init(self._agents))
        for name, interval_s, step in (
            ("lease", self._settings.heartbeat_s, self._renew),
            ("heartbeat", self._settings.heartbeat_s, self._beat),
            ("rescue", self._settings.rescue_interval_s, self._rescue),
            ("watch", WATCH_S, self._watch),
        ):
            thread = threading.Thread(
                target=self._every, args=(name, interval_s, step), name=name, daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads and sign off; what cannot be said for an outage is left unsaid."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=self._settings.heartbeat_s)
        faulthandler.cancel_dump_traceback_later()
        self._sign_off()
        self.engine.close()

    def _sign_off(self) -> None:
        try:
            self.engine.store.tell_ended()
            self._rescuer.release()
            self.engine.registry.leave(self.worker)
        except Unavailable as error:
            log.warning("worker.sign_off_failed", error=error.code)

    def consumer_moved(self) -> None:
        """Called by Celery's timer: its event loop turns."""
        self._consumer_seen = time.monotonic()

    def _every(self, name: str, interval_s: float, step: Callable[[], object]) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                step()
            except Unavailable as error:
                log.warning("worker.step_unavailable", step=name, error=error.code)
            except Exception:
                # The thread must outlive any one fault: without it every task would be lost.
                log.exception("worker.step_failed", step=name)
            self._stopping.wait(max(0.0, interval_s - (time.monotonic() - began)))

    def _renew(self) -> None:
        faulthandler.dump_traceback_later(wedged_after_s(self._settings), exit=True)
        self.engine.store.read_clock()
        self.engine.store.renew((held.task_id, held.fence) for held in self._holds.inside())
        self.engine.store.tell_ended()

    def _rescue(self) -> None:
        counts = self._rescuer.tick()
        if counts is not None:
            self.engine.metrics.rescued(vars(counts))

    def _beat(self) -> None:
        try:
            self.engine.registry.beat(self._heartbeat())
        except BrokerUnavailable as error:
            log.warning("worker.heartbeat_lost", error=error.code)

    def _heartbeat(self) -> Heartbeat:
        now = time.monotonic()
        with self._lock:
            recent = [run_s for at, run_s in self._run_times if now - at < MEAN_OVER_S]
            recent = recent or [run_s for _, run_s in self._run_times]
            return Heartbeat(
                worker=self.worker,
                node=self._node,
                agents=self._slots,
                running=dict(self._holds.count_by_agent()),
                done=self._outcomes["completed"],
                failed=self._outcomes["failed"],
                mean_run_s=sum(recent) / len(recent) if recent else 0.0,
                trouble=self._trouble(now),
                started_at=self._started_at,
                version=installed_version(),
                pid=os.getpid(),
                metrics=self.metrics_address,
            )

    def _trouble(self, now: float) -> str | None:
        for held in self._holds.inside():
            if held.past_soft(now):
                return (
                    f"task {held.task_id} ({held.type}) has not returned within its limit of "
                    f"{held.soft_limit_s:g} s"
                )
        if not self._watches_consumer:
            return None
        if self._consumer_seen is None:
            return "its consumer has not started"
        silent_s = now - self._consumer_seen
        if silent_s > CONSUMER_PATIENCE * self._settings.heartbeat_s:
            return f"its consumer has not moved for {silent_s:.0f} s"
        return None

    # -- its end ---------------------------------------------------------------------

    def _watch(self) -> None:
        """See to requests to stop and to handlers that overran their hard limit."""
        level = self._stop.level
        if level and not self._leaving.is_set():
            self._leave_by = time.monotonic() + self._settings.shutdown_grace_s
            self._leaving.set()
            self._holds.close()
            log.info("worker.stopping", holds=len(self._holds.inside()))
        if level > 1 or time.monotonic() > self._leave_by:
            self._end_process("it was asked to stop", os.EX_OK)
        stuck = [held for held in self._holds.inside() if held.past_hard(time.monotonic())]
        if stuck:
            self._give_up(stuck)

    def _give_up(self, stuck: list[Attempt]) -> None:
        """Count the stuck attempts as failures, and end the process that they are stuck in.

        Raises:
            StoreUnavailable: not now; the process keeps the results that it has for MongoDB.
        """
        for held in stuck:
            assert held.claim is not None  # or its handler would not run
            log.error("task.stuck", task_id=held.task_id, type=held.type)
            detail = f"The handler did not return within {held.hard_limit_s:g} s."
            try:
                self._failed(held.claim, "time_limit", detail, {}, retry=True, patient=False)
            except StaleAttempt:
                log.warning("task.stale", task_id=held.task_id, fence=held.fence)
        if any(held.since is not None for held in stuck):
            names = ", ".join(f"task {held.task_id} ({held.type})" for held in stuck)
            self._end_process(f"past the hard time limit: {names}", EX_STUCK)

    def _end_process(self, reason: str, status: int) -> None:
        """Hand back what is held, at nobody's cost, and end without waiting for any thread.

        That comes last: the rescuer publishes it within a second, and no handler is to overlap
        with its own next run. Where MongoDB is away the leases run out.
        """
        self._stopping.set()
        self._holds.close()
        self._holds.wait_for_claims(self._settings.store_timeout_s)
        try:
            # What Redis and MongoDB are told may take them seconds.
            self._sign_off()
            inside = self._holds.inside()
            log.warning("worker.ends", reason=reason, status=status, holds=len(inside))
            for held in inside:
                if held.claim is not None:
                    self._hand_back(held.claim, "worker_ended")
        except Exception as error:
            # Whatever it was: half a process, without leases, must not stay.
            code = getattr(error, "code", type(error).__name__)
            log.warning("worker.hand_back_failed", error=code)
        finally:
            logging.shutdown()
            os._exit(status)

    def _hand_back(self, claim: Claim, code: str) -> None:
        with contextlib.suppress(StaleAttempt):
            self.engine.store.retry(claim, {"code": code}, 0.0, failed=False)

    # -- one task --------------------------------------------------------------------

    def execute(
        self,
        agent: Agent,
        task_type: TaskType,
        task_id: str,
        fence: int,
        *,
        alone: bool,
    ) -> None:
        """Run the task that a message names, if it is still as the message says.

        With `alone`, while nothing else runs in this process.

        Raises:
            AttemptFailed: the attempt failed; its code only, for Flower.
        """
        logs.about_nothing()
        limits_s = task_type.limits_s(self._settings.soft_limit_s, self._settings.hard_limit_s)
        held = Attempt(agent.id, task_type.name, task_id, fence + 1, *limits_s)
        if not self._holds.enter(held, alone=alone):
            log.info("task.not_begun", task_id=task_id, fence=fence)
            return
        began = time.monotonic()
        outcome = "dropped"
        try:
            token = new_token()
            claim = self._until_stored(
                "claim",
                lambda: self.engine.store.claim(task_id, fence, self.worker, token),
                unless=self._leaving,
            )
            if claim is None:
                log.debug("task.not_claimed", task_id=task_id, fence=fence)
                return
            self._holds.claimed(held, claim)
            self.engine.metrics.claimed(claim.task)
            logs.about(**_whose(claim.task))
            outcome = self._attempt(agent, task_type, claim, held)
        except StaleAttempt:
            log.warning("task.stale", task_id=task_id, fence=fence)
            outcome = "stale"
        except StoreUnavailable:
            # The process ends while MongoDB is away: the lease runs out, and it runs elsewhere.
            log.warning("task.left", task_id=task_id, fence=fence)
            outcome = "left"
        except Exception as error:
            log.error("task.stumbled", task_id=task_id, type=task_type.name, where=_where(error))
            outcome = self._stumbled(held.claim)
        finally:
            self._holds.leave(held)
            run_s = time.monotonic() - began
            with self._lock:
                self._outcomes[outcome] += 1
                if outcome not in ("dropped", "stale", "left"):
                    self._run_times.append((time.monotonic(), run_s))
            if outcome != "dropped":
                self.engine.metrics.attempted(task_type.name, agent.id, outcome, run_s)
        log.info(
            f"task.{outcome}",
            task_id=task_id,
            type=task_type.name,
            agent=agent.id,
            run_ms=round(run_s * 1000, 1),
        )
        if outcome in ("failed", "retried"):
            raise AttemptFailed(outcome)

    def _stumbled(self, claim: Claim | None) -> str:
        """What is wrong with us, and not with the handler, counts against its retries too: a
        task that we can never store must come to an end."""
        if claim is None:
            return "dropped"
        try:
            return self._failed(claim, "worker_error", "The worker stumbled.", {}, retry=True)
        except StaleAttempt:
            return "stale"
        except StoreUnavailable:
            return "left"

    def _attempt(self, agent: Agent, task_type: TaskType, claim: Claim, held: Attempt) -> str:
        """Run the handler and store what came of it; returns the outcome in a word."""
        task, store, coordinator = claim.task, self.engine.store, self.engine.coordinator
        stop = self._reason_to_stop(task)
        if stop is not None:
            return self._cancelled(claim, stop)
        if task.redo and self._until_stored("redo", lambda: coordinator.replay_children(task)):
            waiting = self._until_stored("wait", lambda: store.wait_again(claim))
            # They may have ended before it waited for them.
            self._until_stored("resume", lambda: coordinator.resume(waiting))
            return "waiting"
        try:
            payload = task_type.payload.model_validate(task.payload)
        except ValidationError as error:
            fields = [".".join(map(str, problem["loc"])) for problem in error.errors()]
            detail = "The payload is not valid."
            return self._failed(claim, "invalid_payload", detail, {"fields": fields}, retry=False)
        try:
            context, result = self._handle(task_type, task, payload, held)
        except TaskError as error:
            return self._failed(claim, error.task_code, error.detail, error.facts, retry=False)
        except RetryLater as error:
            return self._put_off(claim, error)
        except StaleAttempt:
            raise  # another run of the task has the session: this one counts for nothing
        except (Unavailable, StaleContext, ConnectionFailure) as error:
            # Not the handler's fault: nothing is counted against the task.
            code = error.code if isinstance(error, OrchestratorError) else StoreUnavailable.code
            self._until_stored(
                "retry",
                lambda: store.retry(
                    claim, {"code": code}, self._settings.retry_base_s, failed=False
                ),
            )
            return "handed_back"
        except Exception as error:
            log.error("task.handler_raised", task_id=task.id, type=task.type, where=_where(error))
            name = type(error).__name__
            return self._failed(
                claim, "handler_error", f"The handler raised {name}.", {}, retry=True
            )
        if context.stop_seen:
            return self._stopped(claim, held)
        try:
            if isinstance(result, HandOver):
                return self._hand_over(claim, result)
            ended = self._until_stored("finish", lambda: store.finish(claim, _plain(result)))
        except UNFIT as error:
            log.error("task.result_unfit", task_id=task.id, type=task.type, where=_where(error))
            detail = "The handler's result cannot be stored."
            return self._failed(claim, "result_unfit", detail, {}, retry=False)
        self._until_stored("settle", lambda: coordinator.settle(ended))
        return "completed"

    def _stopped(self, claim: Claim, held: Attempt) -> str:
        """End the attempt of a handler that was told to stop, by what it was told for."""
        task = self._until_stored("look", lambda: self.engine.store.get(claim.task.id))
        stop = self._reason_to_stop(task)
        if stop is not None:
            return self._cancelled(claim, stop)
        detail = f"The handler stopped at its limit of {held.soft_limit_s:g} s."
        return self._failed(claim, "time_limit", detail, {}, retry=True)

    def _cancelled(self, claim: Claim, why: Document) -> str:
        ended = self._until_stored("cancel", lambda: self.engine.store.cancelled(claim, why))
        self._until_stored("settle", lambda: self.engine.coordinator.settle(ended))
        return "cancelled"

    def _reason_to_stop(self, task: Task) -> Document | None:
        if task.cancel:
            return {"code": "cancelled", "detail": "Cancelled."}
        if task.deadline is not None and task.deadline < self.engine.clock.now():
            return {"code": "deadline_exceeded", "detail": "Its deadline has passed."}
        return None

    def _handle(
        self, task_type: TaskType, task: Task, payload: BaseModel, held: Attempt
    ) -> tuple[TaskContext, Any]:
        """Run the handler; a context that changed under it is worked out again at once."""
        children = self.engine.coordinator.children(task) if task.handover is not None else []
        stop_at = time.monotonic() + held.soft_limit_s
        context = TaskContext(task, self.engine, children, task.memory or {}, stop_at)
        held.since = time.monotonic()
        try:
            return context, self._run(task_type, context, payload)
        finally:
            held.since = None

    @staticmethod
    def _run(task_type: TaskType, context: TaskContext, payload: BaseModel) -> Any:
        for attempt in range(STALE_CONTEXT_TRIES):
            try:
                return task_type.handler(context, payload)
            except StaleContext:
                if attempt == STALE_CONTEXT_TRIES - 1:
                    raise
            except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
                # Celery's threads would never give the slot back.
                raise RuntimeError("the handler tried to end its process") from error
        raise AssertionError("unreachable")

    def _put_off(self, claim: Claim, later: RetryLater) -> str:
        store, settings = self.engine.store, self._settings
        pause_s = later.after_s
        if pause_s is None:
            pause_s = retry_pause_s(
                claim.task.attempts - 1,
                settings.retry_base_s,
                settings.retry_max_s,
                self._random,
            )
        error = {"code": later.code, "detail": later.detail}
        self._until_stored("retry", lambda: store.retry(claim, error, pause_s, failed=False))
        return "put_off"

    def _failed(
        self,
        claim: Claim,
        code: str,
        detail: str,
        facts: Document,
        *,
        retry: bool,
        patient: bool = True,
    ) -> str:
        """Store that the attempt failed; unless `patient`, raises StoreUnavailable at once."""
        store, settings = self.engine.store, self._settings
        until_stored = self._until_stored if patient else _at_once
        error = {"code": code, "detail": detail} | ({"facts": facts} if _fit(facts) else {})
        if retry and claim.task.failures < settings.max_failures:
            pause_s = retry_pause_s(
                claim.task.failures, settings.retry_base_s, settings.retry_max_s, self._random
            )
            until_stored("retry", lambda: store.retry(claim, error, pause_s))
            return "retried"
        ended = until_stored("fail", lambda: store.fail(claim, error))
        until_stored("settle", lambda: self.engine.coordinator.settle(ended))
        return "failed"

    def _hand_over(self, claim: Claim, wanted: HandOver) -> str:
        coordinator = self.engine.coordinator
        if claim.task.depth + 1 > self._settings.max_depth:
            return self._failed(
                claim,
                "too_deep",
                "Hand-overs nest too deep.",
                {"depth": claim.task.depth},
                retry=False,
            )
        try:
            self._until_stored("check", lambda: coordinator.check_children(wanted.children))
        except Invalid as error:
            return self._failed(claim, error.code, error.detail, error.facts, retry=False)
        waiting = self._until_stored(
            "wait", lambda: self.engine.store.wait(claim, wanted.children, wanted.memory)
        )
        self._until_stored("hand_over", lambda: coordinator.hand_over(waiting))
        return "waiting"

    def _until_stored(
        self, step: str, write: Callable[[], T], unless: threading.Event | None = None
    ) -> T:
        """Do a write however long MongoDB is away, holding the slot: no new task is taken.

        Raises:
            StoreUnavailable: the process is ending, or `unless` is set; the lease ends by itself.
            StaleAttempt: the task went on without us.
        """
        over = unless or self._stopping
        pause_s = 0.1
        while True:
            try:
                return write()
            except StoreUnavailable as error:
                log.warning("worker.waits_for_store", step=step, error=error.code)
                if over.wait(pause_s):
                    raise
                pause_s = min(pause_s * 2, 2.0)

    def accept_scheduled(self, task_type: str, payload: Document, period: int) -> None:
        """Accept beat's request, once per period however often beat says so."""
        request = Request(
            type=task_type,
            payload=payload,
            caller="beat",
            idempotency_key=f"{task_type}/{period}",
        )
        self._until_stored("accept", lambda: self.engine.coordinator.submit(request))


def _at_once(_: str, write: Callable[[], T]) -> T:
    return write()


def wedged_after_s(settings: Settings) -> float:
    """How long a process may go without a turn of its lease thread: beyond all that a slow turn
    takes where MongoDB hangs, or every worker would end with it."""
    # A turn is three round trips; the driver waits for a server and for its answer
    # (`open_database`), and tries each twice.
    slowest_turn_s = 3 * 2 * (1 + 4) * settings.store_timeout_s
    return max(WEDGED_S, 2 * settings.heartbeat_s + slowest_turn_s)


def retry_pause_s(failures: int, base_s: float, max_s: float, rng: random.Random) -> float:
    """Pause before the next try: exponential with full jitter, never under half the step.

    After "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "equal jitter".
    """
    step_s: float = min(max_s, base_s * 2.0 ** min(failures, 30))
    return step_s / 2 + rng.uniform(0, step_s / 2)


def _fit(facts: Document) -> bool:
    """There are facts, and they can be stored."""
    try:
        bson.encode(facts)
    except UNFIT:
        log.error("task.facts_unfit", names=sorted(facts))
        return False
    return bool(facts)


def _plain(result: Any) -> Any:
    """A handler's result as JSON-able values."""
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def _whose(task: Task) -> dict[str, str]:
    """What joins a task's lines with those of the request that it came with."""
    whose = {} if task.request_id is None else {"request_id": task.request_id}
    session_id = task.session_id
    return whose if session_id is None else whose | {"session": logs.pseudonym(session_id)}


def _where(error: Exception) -> list[str]:
    """Where an exception came from, without its message: that may quote a customer."""
    return [type(error).__name__, *logs.where(error.__traceback__)]


# -- Celery ------------------------------------------------------------------------------


class Worker(CeleryWorker):
    """Celery's worker under a name that begins with its role and is its own on this host.

    Its pool is threads unless `-P` says otherwise: agents mostly wait for others, threads
    share connections, and one process is one worker.
    """

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        command = click.get_current_context(silent=True)
        if command is None or command.get_parameter_source("pool") is ParameterSource.DEFAULT:
            options["pool"] = "threads"
        # Neighbours have nothing to say to each other here, and asking costs a second.
        options |= {"without_mingle": True, "without_gossip": True}
        host = socket.gethostname()
        if hostname in (None, f"celery@{host}"):
            hostname = f"{(app or self.app).main}@{host}-{os.getpid()}"
        super().__init__(app=app, hostname=hostname, **options)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Let TERM, INT and QUIT ask our way: Celery's own wait for handlers without an end."""
        super().install_platform_tweaks(worker)
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            platforms.signals[name] = self._asked_to_stop

    def _asked_to_stop(self, number: int, _: Any) -> None:
        self.app.stop_request.ask(at_once=number == signal.SIGQUIT)
        if celery_state.should_stop is None and self.app.runtime is None:
            # With prefork the children hand back; their parent must not outlive them.
            threading.Thread(target=self._end_with_children, daemon=True).start()
        celery_state.should_stop = os.EX_OK

    def _end_with_children(self) -> None:
        grace_s = current().shutdown_grace_s
        leave_by = time.monotonic() + grace_s
        while time.monotonic() < leave_by and self.app.stop_request.level < 2:
            time.sleep(WATCH_S)
        time.sleep(CHILDREN_S)
        log.warning("worker.ends", reason="it was asked to stop", status=os.EX_OK)
        for child in getattr(getattr(self.pool, "_pool", None), "_pool", ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        os._exit(os.EX_OK)


class Consumer(CeleryConsumer):
    """Celery's consumer, with ten messages of events a second at most, not three per task, and
    back within a second of its broker: Celery's pauses grow to half a minute."""

    _flush_at = 0.0

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; a request to stop ends it."""

        def failed(error: Exception, pause_s: float) -> None:
            name = type(error).__name__
            log.warning("worker.broker_unreachable", error=name, pause_s=pause_s)

        conn = conn.ensure_connection(
            failed,
            interval_start=RECONNECT_S,
            interval_step=0,
            interval_max=RECONNECT_S,
            callback=celery_state.maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn

    def on_send_event_buffered(self) -> None:
        """Called in the threads of tasks, too."""
        # A flush that is lost with its connection holds up none after it.
        if self.hub and time.monotonic() >= self._flush_at:
            self._flush_at = time.monotonic() + EVENTS_PAUSE_S
            # The hub's timer is for its own thread only.
            self.hub.call_soon(self.hub.call_later, EVENTS_PAUSE_S, self._flush_events)


class AgentApp(Celery):
    """A Celery app that serves agents; made by `make_app`."""

    agents: Sequence[Agent] = ()
    runtime: Runtime | None = None
    stop_request: StopRequest

    @cached_property
    def Worker(self) -> Any:  # Celery names it so
        """The worker class that `celery worker` starts."""
        return self.subclass_with_self("orchestrator.worker:Worker")


def make_app(*agents: Agent, name: str | None = None) -> AgentApp:
    """The Celery app of one agent, or of several on a small machine.

    `celery -A agents.quote worker` is then a complete command: right queue, slots and name.
    """
    try:
        settings = current()
    except BadSettings as error:
        sys.exit(f"cannot start: {error.detail}")
    app = AgentApp(name or agents[0].role)
    configure(app, settings)
    app.agents = agents
    app.stop_request = StopRequest()
    app.conf.task_queues = [
        Queue(queue, Exchange(""), routing_key=queue)
        for queue in (settings.queue(agent.role) for agent in agents)
    ]
    app.conf.task_default_queue = settings.queue(agents[0].role)
    app.conf.worker_concurrency = sum(agent.slots for agent in agents)
    for name in sorted({name for agent in agents for name in agent.task_types}):
        handling = {
            settings.queue(agent.role): (agent, agent.task_types[name])
            for agent in agents
            if name in agent.task_types
        }
        app.task(_celery_task(app, handling), name=name, shared=False, bind=True)
    app.task(_accept_scheduled(app), name=ACCEPT_SCHEDULED, shared=False)
    app.conf.beat_schedule = {
        f"{agent.role}.{schedule.task_type}": {
            "task": ACCEPT_SCHEDULED,
            "schedule": schedule.every_s,
            "args": (schedule.task_type, schedule.payload, schedule.every_s),
            "options": {
                # By its queue's name: beside an exchange without a name Celery puts its default
                # queue, that of the app's first agent.
                "queue": settings.queue(agent.role),
                # A tick that nobody took before the next one is of no use.
                "expires": schedule.every_s,
            },
        }
        for agent in agents
        for schedule in agent.schedules
    }
    _connect_signals(app, settings)
    return app


def _bind_flower_safely() -> None:
    """Flower's own default is every address of the machine, without a password."""
    from tornado.options import options  # only Flower's process has a use for it

    options.address = options.address or "127.0.0.1"
    if not (is_loopback(options.address) or options.basic_auth or options.auth):
        sys.exit(
            f"cannot start: Flower's address {options.address} can be reached from other machines: "
            "set FLOWER_BASIC_AUTH first, or keep 127.0.0.1"
        )


def _celery_task(app: AgentApp, handling: dict[str, tuple[Agent, TaskType]]) -> Callable[..., None]:
    """Celery knows a task by its type alone, and of several agents in one worker two may handle
    the same: the queue that a message came by tells which one was chosen."""

    def run(
        self: Any, task_id: str, fence: int, published_at: float = 0.0, alone: bool = False
    ) -> None:
        if app.runtime is None:
            raise AttemptFailed("no_runtime")
        agent, task_type = handling[self.request.delivery_info["routing_key"]]
        app.runtime.execute(agent, task_type, task_id, fence, alone=alone)

    _, first = next(iter(handling.values()))
    run.__doc__ = first.handler.__doc__
    return run


def _accept_scheduled(app: AgentApp) -> Callable[..., None]:
    def accept_scheduled(task_type: str, payload: Document, every_s: float) -> None:
        """Accept a task that beat asks for."""
        if app.runtime is None:
            raise AttemptFailed("no_runtime")
        period = int(time.time() // every_s)
        app.runtime.accept_scheduled(task_type, payload, period)

    return accept_scheduled


def _connect_signals(app: AgentApp, settings: Settings) -> None:
    """Start a runtime in each process that runs tasks, before its first task."""
    node: dict[str, Any] = {}

    def on_worker_init(sender: Any, **_: Any) -> None:
        # Celery sends setup_logging after this one: a start that fails is told as JSON too.
        logs.configure(settings)
        node.update(name=sender.hostname, prefork="prefork" in str(sender.pool_cls))
        if node["prefork"]:
            node["metrics"] = metrics.serve(metrics.gather_from_children(), settings)
        else:
            slots = {agent.id: agent.slots for agent in app.agents}
            if len(app.agents) == 1:
                slots = {app.agents[0].id: sender.concurrency}
            start(sender.hostname, slots, watches_consumer=True)

    def start(name: str, slots: dict[str, int], *, watches_consumer: bool) -> None:
        try:
            app.runtime = Runtime(
                settings,
                app.agents,
                name,
                slots,
                app.stop_request,
                watches_consumer=watches_consumer,
            )
            counted = app.runtime.engine.metrics.registry
            app.runtime.metrics_address = (
                node["metrics"] if node["prefork"] else metrics.serve(counted, settings)
            )
            app.runtime.start()
        except Exception as error:
            # Celery swallows what a signal's receiver raises, and would serve without leases.
            log.exception("worker.start_failed", error=type(error).__name__)
            sys.exit(1)

    def on_child_init(**_: Any) -> None:
        # Each child holds leases of its own: the parent must not keep a dead child's alive.
        slots = {agent.id: 1 for agent in app.agents}
        start(node["name"], slots, watches_consumer=False)

    def on_worker_ready(sender: Any, **_: Any) -> None:
        if app.runtime is not None:
            app.runtime.consumer_moved()
            sender.timer.call_repeatedly(settings.heartbeat_s, app.runtime.consumer_moved)
        log.info("worker.ready", node=node["name"], agents=[agent.id for agent in app.agents])

    def on_shutdown(**_: Any) -> None:
        if app.runtime is not None:
            app.runtime.stop()
            app.runtime = None

    def on_worker_shutdown(**_: Any) -> None:
        on_shutdown()
        metrics.forget_children()

    def on_task_failure(exception: BaseException, **_: Any) -> None:
        # It leads to the frame that holds it, and to Celery's copy of the whole traceback: such a
        # circle stays until the collector's last generation comes by, hundreds of failures later.
        exception.__traceback__ = exception.__context__ = None

    def on_setup_logging(**_: Any) -> None:
        # Being connected keeps Celery from setting up its own.
        logs.configure(settings)

    def on_import_modules(**_: Any) -> None:
        # Flower sends this too, when its options are known and before it listens.
        if "flower.command" in sys.modules:
            _bind_flower_safely()

    # weak=False: nothing else holds these functions.
    signals.import_modules.connect(on_import_modules, weak=False)
    signals.setup_logging.connect(on_setup_logging, weak=False)
    signals.worker_init.connect(on_worker_init, weak=False)
    signals.worker_process_init.connect(on_child_init, weak=False)
    signals.worker_ready.connect(on_worker_ready, weak=False)
    signals.task_failure.connect(on_task_failure, weak=False)
    signals.worker_process_shutdown.connect(on_shutdown, weak=False)
    signals.worker_shutdown.connect(on_worker_shutdown, weak=False)
