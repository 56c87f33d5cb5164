"""Accepting work and carrying its consequences: the only way in for tasks.

Keeps secret which writes follow which. Every step after the insert is repeatable and is
repeated by the rescuer where a process died between two of them.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.admission import Admission
from orchestrator.broker import Publisher
from orchestrator.declarations import Declaration, DeclarationStore
from orchestrator.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    Invalid,
    NoCapableAgent,
    StoreUnavailable,
    TaskIsFinal,
    TaskNotFound,
    TooManyWaiting,
)
from orchestrator.logs import log
from orchestrator.metrics import Metrics
from orchestrator.replies import Replies
from orchestrator.router import Decision, Router
from orchestrator.settings import Settings
from orchestrator.tasks import Request, State, Task, TaskStore

_REMEMBERED_KEYS = 10_000
_CHUNK = 50  # children looked at in one read


@dataclass(frozen=True)
class ChildResult:
    """How a task that was handed over ended: a value, also when it failed."""

    type: str
    state: State
    result: Any
    error: dict[str, Any] | None

    @property
    def completed(self) -> bool:
        """It has a result."""
        return self.state is State.COMPLETED


class Coordinator:
    """Accept, cancel, and settle what follows from a task's end. One per process."""

    def __init__(
        self,
        store: TaskStore,
        declarations: DeclarationStore,
        router: Router,
        publisher: Publisher,
        replies: Replies,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._store = store
        self._declarations = declarations
        self._router = router
        self._publisher = publisher
        self._replies = replies
        self._metrics = metrics
        self._settings = settings
        self._seq_hints = _SeqHints()
        self._quiet = _Quiet(self._start)
        # Set by the engine: workflows need a coordinator first.
        self.advance_run: Callable[[str, Task], None] = lambda run_id, ended: None

    def submit(
        self,
        request: Request,
        *,
        public: bool = False,
        admission: Admission | None = None,
        quiet_s: float = 0.0,
    ) -> tuple[Task, bool]:
        """Accept a request durably and send it on its way; False for a repetition.

        When this returns, the task will be done, whatever dies. With `public`, only task
        types that are open to the outside. A request from outside comes with the admission
        that has to let it in; one that follows from an accepted task needs none. With
        `quiet_s` a task that has nothing before it starts only once nothing more of its
        ordering key has come here for so long, at most three times as long after the first.

        Raises:
            Overloaded: not admitted, so not accepted.
            NoCapableAgent, InvalidPayload, IdempotencyKeyReused, TooManyWaiting, KeyBusy: not
                accepted.
            StoreUnavailable: unknown; ask again with the same key.
        """
        known = self._store.by_idempotency_key(request)
        if known is not None:
            return known, False
        if admission is not None:
            admission.check(request, public=public)
        agent, decision = self._router.route(request, public=public)
        self._declarations.validate(agent, request.type, request.payload)
        if request.ordering_key is not None:
            request = replace(
                request, seq_after=self._reached(request.ordering_key, request.seq_after)
            )
        task, created = self._store.accept(
            request,
            agent=agent.agent_id,
            queue=self._settings.queue(agent.role),
            decision=decision.to_document(),
            epoch=self._router.epoch,
        )
        if not created:
            return task, False
        self._metrics.accepted(task)
        log.info("task.accepted", task_id=task.id, type=task.type, agent=task.agent)
        if task.key is not None:
            self._seq_hints.set(task.key, task.seq or 0)
            if quiet_s > 0:
                self._quiet.put(task.key, quiet_s)
            else:
                self._start(task.key)
        else:
            self.publish(task)
        return task, True

    def _reached(self, key: str, seq_after: int) -> int:
        """The number that an ordering key has reached; 0 where nothing is known of it.

        What is known may be old, and the number behind it free though higher ones are given: a
        replayed task leaves its own. In there a message would overtake those that wait.

        Raises:
            TooManyWaiting: no more of this key.
        """
        known = max(seq_after, self._seq_hints.get(key))
        if not known:
            return 0
        limit = self._settings.max_waiting_per_key
        blocked = self._store.blocked_places(key, limit)
        if len(blocked) >= limit:
            raise TooManyWaiting(limit=limit)
        return max(known, *blocked) if blocked else self._store.reached(key, known)

    def _start(self, key: str) -> None:
        try:
            self.promote(key)
        except StoreUnavailable as error:
            # What waits is accepted: the rescuer promotes it.
            log.warning("task.promote_failed", error=error.code)

    def close(self) -> None:
        """Start what waits for more to come, and nothing after that."""
        self._quiet.close()

    def publish(self, *tasks: Task) -> None:
        """Put those of the tasks that are queued into their queues.

        Of any other state a message would name the fence, and a claim would succeed. A broker
        that is away leaves them to the rescuer.
        """
        tasks = tuple(task for task in tasks if task.state is State.QUEUED)
        try:
            self._publisher.publish(tasks)
        except BrokerUnavailable as error:
            for task in tasks:
                log.warning("task.publish_failed", task_id=task.id, error=error.code)

    def promote(self, key: str) -> bool:
        """Start the next task of an ordering key, if none is under way."""
        head = self._store.promote(key, self._router.epoch)
        if head is not None:
            self.publish(head)
        return head is not None

    def settle(self, task: Task) -> None:
        """What follows when a task became final: tell who waits, resume, start the next.

        Raises:
            StoreUnavailable: the rescuer does what was left undone.
        """
        self._replies.announce(task)
        if task.key is not None:
            self.promote(task.key)
        if task.parent is not None:
            self.resume(self._store.get(task.parent["id"]))
        if task.run is not None:
            self.advance_run(task.run, task)

    def submit_step(self, request: Request, task_id: str, run_id: str) -> Task:
        """Accept the task of a workflow run's step under its id, once; repeatable.

        One that nobody can do, or whose payload is not valid, is stored as cancelled: the run
        sees it as any other failure.
        """
        try:
            agent, decision = self._router.route(request)
            self._declarations.validate(agent, request.type, request.payload)
        except Invalid as error:
            why = {"code": error.code, "detail": error.detail}
            return self._accept_step(request, task_id, run_id, refused=why)
        task = self._accept_step(request, task_id, run_id, agent=agent, decision=decision)
        self.publish(task)
        return task

    def stop_step(self, task_id: str, run_id: str, caller: str) -> None:
        """Cancel the task of a step. One that was never stored is stored as cancelled, so that
        whoever was about to store it finds it so."""
        why = {"code": "cancelled", "detail": "Cancelled."}
        try:
            self.cancel(task_id)
        except TaskNotFound:
            self._accept_step(
                Request("stopped_step", {}, caller=caller), task_id, run_id, refused=why
            )
        except TaskIsFinal:
            log.debug("step.ended_already", task_id=task_id)

    def _accept_step(
        self,
        request: Request,
        task_id: str,
        run_id: str,
        *,
        agent: Declaration | None = None,
        decision: Decision | None = None,
        refused: dict[str, Any] | None = None,
    ) -> Task:
        try:
            task, _ = self._store.accept(
                request,
                agent=agent.agent_id if agent else "",
                queue=self._settings.queue(agent.role) if agent else "",
                decision=decision.to_document() if decision else {},
                epoch=self._router.epoch,
                step=(task_id, run_id),
                refused=refused,
            )
        except IdempotencyKeyReused:
            # Stored by another look at the run, which knew other results: the first one counts.
            return self._store.get(task_id)
        return task

    def hand_over(self, task: Task) -> None:
        """Insert the children that are written into a waiting task; repeatable.

        A child that nobody can do is inserted as a failed task: a value for its parent.
        """
        if task.handover is None:
            return
        phase = task.handover["phase"]
        ready = []
        for n, document in enumerate(task.handover["children"]):
            request = Request.from_document(document)
            ready.append(self._accept_child(request, task, phase, n))
        self.publish(*ready)
        # Whoever cancelled the parent meanwhile has not seen these children.
        parent = self._store.get(task.id)
        if parent.state.final:
            self._cancel_all(parent.child_ids(), parent.error or {})
        elif parent.cancel:
            self.cancel(parent.id)

    def _accept_child(self, request: Request, parent: Task, phase: int, n: int) -> Task:
        try:
            agent, decision = self._router.route(request)
        except NoCapableAgent as error:
            # Its agent is gone since the parent was checked: a value for the parent.
            child, _ = self._store.accept(
                request,
                agent="",
                queue="",
                decision={},
                epoch=0,
                parent=(parent, phase, n),
                refused={"code": error.code, "detail": error.detail, "facts": error.facts},
            )
            return child
        child, _ = self._store.accept(
            request,
            agent=agent.agent_id,
            queue=self._settings.queue(agent.role),
            decision=decision.to_document(),
            epoch=self._router.epoch,
            parent=(parent, phase, n),
        )
        return child

    def _cancel_all(self, task_ids: list[str], error: dict[str, Any]) -> None:
        code, detail = error.get("code", "cancelled"), error.get("detail", "Cancelled.")
        for child in self._store.many(task_ids).values():
            with contextlib.suppress(TaskIsFinal):
                self.cancel(child.id, code, detail)

    def check_children(self, children: list[Request]) -> None:
        """See that all children could be accepted, before they are written into a parent.

        Raises:
            NoCapableAgent, InvalidPayload: one could not.
        """
        for child in children:
            agent, _ = self._router.route(child)
            self._declarations.validate(agent, child.type, child.payload)

    def resume(self, parent: Task) -> bool:
        """Put a waiting task back into its queue if all it waits for is final."""
        if parent.state is not State.WAITING or parent.cancel:
            return False
        expected = parent.child_ids()
        # From the last one backwards: it is the likeliest to be still under way.
        for start in range(len(expected), 0, -_CHUNK):
            chunk = expected[max(0, start - _CHUNK) : start]
            if len(self._store.final_among(chunk)) < len(chunk):
                return False
        resumed = self._store.resume(parent, self._router.epoch)
        if resumed is not None:
            self.publish(resumed)
        return resumed is not None

    def replay(self, task: Task, *, by: str) -> Task | None:
        """Let a task that failed run once more; None when it has moved on since it was read.

        Its children that failed run again when it is its turn (`replay_children`).
        """
        replayed = self._store.replay(task, self._router.epoch, by=by)
        if replayed is None:
            return None
        log.info("task.replayed", task_id=task.id, type=task.type)
        if replayed.key is None:
            self.publish(replayed)
            return replayed
        self._seq_hints.set(replayed.key, replayed.seq or 0)
        self.promote(replayed.key)
        return self._store.get(task.id)

    def replay_children(self, task: Task) -> bool:
        """Let what a task handed over and did not get run again; False where it has got all.

        What completed stays as it is. Repeatable: what runs already is left alone.
        """
        expected = task.child_ids()
        found = self._store.many(expected)
        if len(found) < len(expected):
            # Finished children are not kept as long as dead letters are.
            self.hand_over(task)
            found = self._store.many(expected)
        under_way = False
        for child_id in expected:
            child = found[child_id]
            if child.state is State.COMPLETED:
                continue
            if child.state.final:
                self._replay_child(child, task)
            under_way = True
        return under_way

    def _replay_child(self, child: Task, parent: Task) -> None:
        anew: dict[str, Any] = {} if parent.deadline is None else {"deadline": parent.deadline}
        if not child.agent and parent.handover is not None and child.parent is not None:
            # Nobody could do it; maybe somebody can now.
            asked = Request.from_document(parent.handover["children"][child.parent["n"]])
            try:
                agent, decision = self._router.route(asked)
            except NoCapableAgent:
                return
            queue = self._settings.queue(agent.role)
            anew |= {"agent": agent.agent_id, "queue": queue, "decision": decision.to_document()}
        replayed = self._store.replay(child, self._router.epoch, by="parent", anew=anew)
        if replayed is not None:
            self.publish(replayed)

    def children(self, task: Task) -> list[ChildResult]:
        """Results of the last hand-over, in its order."""
        found = self._store.many(task.child_ids())
        return [
            ChildResult(child.type, child.state, child.result, child.error)
            for child in (found[child_id] for child_id in task.child_ids())
        ]

    def cancel(self, task_id: str, code: str = "cancelled", detail: str = "Cancelled.") -> Task:
        """Cancel a task and what it handed over.

        A task that runs ends when its handler returns; the returned task is then still
        running, with `cancel` set.

        Raises:
            TaskNotFound: no such task.
            TaskIsFinal: it has ended.
        """
        why = {"code": code, "detail": detail}
        task = self._store.get(task_id)
        if task.state is State.WAITING:
            # Those it waits for first: of a task that has ended nobody would see to them. Who
            # dies here leaves the mark, and the rescuer goes on.
            task = self._store.ask_to_stop(task) or self._store.get(task_id)
            self._cancel_all(task.child_ids(), why)
        task = self._store.cancel(task, why)
        log.info("task.cancelled", task_id=task.id, state=task.state.value, code=code)
        # It may have handed over since it was read.
        self._cancel_all(task.child_ids(), why)
        if task.state.final:
            self.settle(task)
            self._store.tell_ended()
        return task


class _SeqHints:
    """The last number this process saw of each ordering key; a wrong one costs one read."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str | None) -> int:
        with self._lock:
            return self._known.get(key, 0) if key else 0

    def set(self, key: str, seq: int) -> None:
        with self._lock:
            self._known[key] = seq
            self._known.move_to_end(key)
            if len(self._known) > _REMEMBERED_KEYS:
                self._known.popitem(last=False)


class _Quiet:
    """Ordering keys whose next task starts once they have been quiet for a while.

    In memory only: of what a dead process had here, the rescuer starts the tasks.
    """

    THREADS = 4  # a start is two round trips
    LONGEST = 3  # times the quiet while, from the first on

    def __init__(self, start: Callable[[str], None]) -> None:
        self._start = start
        self._changed = threading.Condition()
        self._due: dict[str, tuple[float, float]] = {}  # when to start, and when at the latest
        self._threads: list[threading.Thread] = []
        self._closed = False

    def put(self, key: str, quiet_s: float) -> None:
        """Something of the key has come."""
        now = time.monotonic()
        with self._changed:
            latest = self._due.get(key, (now, now + self.LONGEST * quiet_s))[1]
            self._due[key] = min(now + quiet_s, latest), latest
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, name="quiet", daemon=True)
                    for _ in range(self.THREADS)
                ]
                for thread in self._threads:
                    thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Start all that is here, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                key = min(self._due, key=lambda each: self._due[each][0], default=None)
                if key is None and self._closed:
                    return
                if key is None or (self._due[key][0] > now and not self._closed):
                    self._changed.wait(None if key is None else self._due[key][0] - now)
                    continue
                del self._due[key]
            try:
                self._start(key)
            except Exception as error:
                # Whatever it was: without this thread every conversation would begin late.
                log.error("task.start_failed", error=type(error).__name__)
