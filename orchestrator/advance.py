"""What a workflow run does next: values in, a run and commands out.

Keeps secret how control moves through a definition. `advance` is level-triggered: it looks at
what is true now (which step tasks are final, what time it is, which events came), not at what
has just happened, so that it may be called at any time, twice, or late, and a run that missed
everything goes on as one that missed nothing.

A run's state is its visits: each time that control came to a step. Open ones are where control
is now; a run without open ones has ended. Chains inside `parallel` and `map` have a scope: the
visit of the step that they are inside of, and of a map the index.

Pure: no store, no clock. Results stay in the task documents; `Facts.outcomes` may read them
when they are asked for.
"""

import datetime as dt
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from orchestrator.definitions import (
    Asked,
    CallbackStep,
    ConditionStep,
    Definition,
    DelayStep,
    Goto,
    MapStep,
    ParallelStep,
    Retries,
    SwitchStep,
    TaskStep,
    WorkflowStep,
    seconds,
    targets,
)
from orchestrator.errors import Conflict
from orchestrator.expressions import BadExpression, evaluate, filled
from orchestrator.tasks import Document

MAX_VISITS: Final = 10_000
MAX_MAPPED: Final = 1_000
# Of what expressions make up: results may be put together again and again.
MAX_FILLED_BYTES: Final = 1024 * 1024
UNDO_RETRIES: Final = Retries(times=3)
# Nothing has to be heard for a run to go on: while it waits for a task or a child run it is
# looked at this often, and while it only waits for time and events
LOOK_S: Final = 30.0
LONG_LOOK_S: Final = 6 * 3600.0
_NAMED = re.compile(r"\b(data|steps)\.([A-Za-z_]\w*)")


class VisitState(StrEnum):
    """Where one visit of a step stands."""

    ACTIVE = "active"  # its task, child run, branches, delay or event is awaited
    PAUSING = "pausing"  # between two tries
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Control is here."""
        return self in (VisitState.ACTIVE, VisitState.PAUSING)


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPENSATING = "compensating"  # undoing what completed, last first
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Nothing follows, unless somebody retries it."""
        return self in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True)
class Visit:
    """One visit of a step.

    `way` is how it led on; "" where it did not, or not yet. `size` is how many chains a map
    has, `ended` [[branch or index, completed or failed], ...] those that are over. `stop`: it
    is being given up, and leads nowhere. `undo`: it is a compensation. `began` and
    `over`: the fences of the run that it was come to with, and was final with.
    """

    step: str
    scope: tuple[int, ...] = ()
    visit: int = 1
    tries: int = 1
    state: VisitState = VisitState.ACTIVE
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    due_at: dt.datetime | None = None
    way: str = ""
    code: str | None = None
    size: int = 0
    ended: tuple[tuple[str, str], ...] = ()
    stop: bool = False
    undo: bool = False
    began: int = 0
    over: int = 0

    @property
    def key(self) -> str:
        """Its name within the run: the same visit has the same one for ever."""
        scope = "".join(f"-{part}" for part in self.scope)
        return f"{self.step}{scope}:{self.visit}{'u' if self.undo else ''}"

    def task_id(self, run_id: str) -> str:
        """Of its present try: (run, step, visit, try)."""
        return f"{run_id}.{self.key}.{self.tries}"

    def to_document(self) -> Document:
        """As it is stored: what has its default is left out."""
        document: Document = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value != each.default:
                if isinstance(value, tuple):
                    value = [list(part) if isinstance(part, tuple) else part for part in value]
                document[each.name] = value.value if isinstance(value, VisitState) else value
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Visit":
        """The inverse of `to_document`."""
        values = dict(document)
        values["state"] = VisitState(values.get("state", VisitState.ACTIVE))
        values["scope"] = tuple(values.get("scope", ()))
        values["ended"] = tuple((name, how) for name, how in values.get("ended", ()))
        return cls(**values)


@dataclass(frozen=True)
class Run:
    """One execution of a workflow, as far as `advance` is concerned."""

    id: str
    state: RunState
    input: Document
    visits: tuple[Visit, ...] = ()
    cancel: bool = False  # asked to be cancelled
    undo: bool = False  # what completed is to be undone
    error: Document | None = None
    output: Document | None = None
    due_at: dt.datetime | None = None
    fence: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a step's task, or a child run, ended."""

    completed: bool
    result: Any = None
    code: str = ""


@dataclass(frozen=True)
class Facts:
    """What is true now.

    `outcomes`: task id or child run id -> how it ended, of those that have. `missing`: ids that
    should exist, and were never stored. `events`: visit key -> what came for a callback.
    `waiting`: visit keys for which the next message of a session is taken. `look_s`: how soon a
    run that waits for a task is looked at whatever is heard.
    """

    now: dt.datetime
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    events: Mapping[str, Any] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    zone: str = "UTC"
    opens: Callable[[dt.datetime], dt.datetime] = lambda moment: moment
    look_s: float = LOOK_S


@dataclass(frozen=True)
class Submit:
    """A step's task is to be stored, under its id, if it is not yet."""

    task_id: str
    asked: Asked
    payload: Document
    visit: Visit


@dataclass(frozen=True)
class StartRun:
    """A child run is to be stored, under its id, if it is not yet."""

    run_id: str
    workflow: str
    input: Document
    visit: Visit


@dataclass(frozen=True)
class CallOut:
    """A webhook is to go out for a callback that is awaited."""

    task_id: str
    url: str
    body: Document
    visit: Visit


@dataclass(frozen=True)
class Stop:
    """A task (or, with `run`, a child run) is to be cancelled."""

    id: str
    run: bool = False


@dataclass(frozen=True)
class Await:
    """The next message of a session is to be taken for a callback."""

    session_id: str
    visit: Visit
    takes: bool = False


Command = Submit | StartRun | CallOut | Stop | Await


def advance(run: Run, definition: Definition, facts: Facts) -> tuple[Run, tuple[Command, ...]]:
    """Where a run stands now, and what has to be done for it.

    What the commands name is written into the run first. They may be carried out any number
    of times. A paused or final run is left as it is.
    """
    if run.state.final or run.state is RunState.PAUSED:
        return run, ()
    return _Advancing(run, definition, facts).result()


def retried(run: Run, definition: Definition) -> Run:
    """A failed or cancelled run, to go on from the steps at which it stopped.

    Each of those is tried once more; what completed stays as it is.

    Raises:
        Conflict: what completed has been undone, so that there is nothing to go on from.
    """
    if any(visit.undo for visit in run.visits):
        raise Conflict("What completed has been undone: start it anew.")
    reopened: list[Visit] = []
    for visit in run.visits:
        # A map that could not even begin is tried again itself, and not by its chains.
        inside = isinstance(definition.step(visit.step), ParallelStep | MapStep)
        inside = inside and not (visit.code == BadExpression.code and not visit.size)
        if visit.state in (VisitState.FAILED, VisitState.CANCELLED) and not visit.way:
            visit = replace(
                visit,
                state=VisitState.ACTIVE,
                tries=visit.tries if inside else visit.tries + 1,
                ended=tuple(each for each in visit.ended if each[1] == "completed"),
                finished_at=None,
                due_at=None,
                code=None,
                stop=False,
                over=0,
            )
        elif visit.stop and not visit.way:
            # It completed while it was being given up: it leads on now.
            visit = replace(visit, state=VisitState.ACTIVE, finished_at=None, stop=False, over=0)
        reopened.append(visit)
    return replace(
        run, state=RunState.RUNNING, visits=tuple(reopened), cancel=False, undo=False, error=None
    )


class _Advancing:
    """A run on its way to where it stands."""

    def __init__(self, run: Run, definition: Definition, facts: Facts) -> None:
        self.run = run
        self.definition = definition
        self.facts = facts
        self.visits: dict[str, Visit] = {visit.key: visit for visit in run.visits}
        self.open = [visit.key for visit in run.visits if visit.state.open]
        self.counts: dict[tuple[str, tuple[int, ...]], int] = {}
        for visit in run.visits:
            place = (visit.step, visit.scope)
            self.counts[place] = max(self.counts.get(place, 0), visit.visit)
        self.commands: dict[str, Command] = {}
        self.coming: deque[tuple[str, tuple[int, ...]]] = deque()  # steps to be entered

    def result(self) -> tuple[Run, tuple[Command, ...]]:
        if not self.visits and not self.run.cancel:
            self._enter_chain("", ())
            self._enter_all()
        if self.run.cancel and self.run.error is None:
            self._give_up({"code": "cancelled", "detail": "Cancelled."}, undo=True)
        while self._look_at_all():
            pass
        if not self.open:
            self._end()
        due = [self._look_at(self.visits[key]) for key in self.open]
        look_at = self.facts.now + dt.timedelta(seconds=LONG_LOOK_S)
        visits = tuple(self.visits.values())
        run = replace(self.run, visits=visits, due_at=min([*due, look_at]))
        return run, tuple(self.commands.values())

    def _look_at(self, visit: Visit) -> dt.datetime:
        """When an open visit needs a look, whatever is heard of it."""
        step = self.definition.step(visit.step)
        soon = self.facts.now + dt.timedelta(seconds=self.facts.look_s)
        if isinstance(step, CallbackStep) and self._is_settling(visit, step):
            return min(visit.due_at or soon, soon)
        if visit.stop or isinstance(step, TaskStep | WorkflowStep):
            return visit.due_at or soon
        return visit.due_at or self.facts.now + dt.timedelta(seconds=LONG_LOOK_S)

    def _is_settling(self, visit: Visit, step: CallbackStep) -> bool:
        """Whether a callback is not known yet to wait for its session, or to have asked: who
        was to see to that may have died."""
        unheard = step.session is not None and visit.key not in self.facts.waiting
        outcome = self.facts.outcomes.get(visit.task_id(self.run.id)) if step.asks else None
        return unheard or (step.asks and outcome is None)

    def _look_at_all(self) -> bool:
        """Look at each open visit once; whether any moved."""
        moved = False
        for key in list(self.open):
            visit = self.visits[key]
            if visit.state.open and self._look(visit):
                moved = True
            self._enter_all()
        self.open = [key for key in self.open if self.visits[key].state.open]
        return moved

    def _look(self, visit: Visit) -> bool:
        if visit.undo:
            return self._look_at_task(visit, UNDO_RETRIES)
        step = self.definition.step(visit.step)
        if isinstance(step, TaskStep):
            return self._look_at_task(visit, step.retries)
        if isinstance(step, WorkflowStep):
            return self._look_at_child(visit)
        if isinstance(step, DelayStep):
            return self._look_at_delay(visit)
        if isinstance(step, CallbackStep):
            return self._look_at_callback(visit, step)
        if isinstance(step, ConditionStep | SwitchStep):
            return self._begin(visit, step)  # it had failed, and is retried
        if isinstance(step, MapStep) and visit.tries > 1 and not visit.size:
            self._begin(visit, step)
            begun = self.visits[visit.key]
            # Nothing to go over is an end, and otherwise its chains are next.
            return self._complete(begun) if begun.state.open and not begun.size else True
        return self._look_at_chains(visit, step)

    # - each kind of step -

    def _look_at_task(self, visit: Visit, retries: Retries | None) -> bool:
        task_id = visit.task_id(self.run.id)
        if visit.state is VisitState.PAUSING:
            if visit.stop:
                return self._cancelled(visit)
            if visit.due_at is not None and self.facts.now < visit.due_at:
                return False
            again = self._put(visit, state=VisitState.ACTIVE, tries=visit.tries + 1, due_at=None)
            self._submit(again)
            return True
        outcome = self.facts.outcomes.get(task_id)
        if outcome is None:
            if task_id in self.facts.missing and visit.stop:
                self.commands[task_id] = Stop(task_id)
            elif task_id in self.facts.missing:
                return self._submit(visit)
            return False
        if outcome.completed:
            return self._complete(visit)
        if visit.stop:
            return self._cancelled(visit)
        if retries is not None and visit.tries <= retries.times:
            pause_s = min(
                seconds(retries.backoff) * retries.factor ** (visit.tries - 1),
                seconds(retries.longest),
            )
            due_at = self.facts.now + dt.timedelta(seconds=pause_s)
            self._put(visit, state=VisitState.PAUSING, due_at=due_at, code=outcome.code)
            return True
        return self._fail(visit, outcome.code or "task_failed")

    def _look_at_child(self, visit: Visit) -> bool:
        child_id = visit.task_id(self.run.id)
        outcome = self.facts.outcomes.get(child_id)
        if outcome is None:
            if child_id in self.facts.missing and visit.stop:
                self.commands[child_id] = Stop(child_id, run=True)
            elif child_id in self.facts.missing:
                return self._start_child(visit)
            return False
        if outcome.completed:
            return self._complete(visit)
        return self._cancelled(visit) if visit.stop else self._fail(visit, outcome.code)

    def _look_at_delay(self, visit: Visit) -> bool:
        if visit.stop:
            return self._cancelled(visit)
        if visit.due_at is None:
            return self._begin(visit, self.definition.step(visit.step))
        if self.facts.now < visit.due_at:
            return False
        return self._complete(visit)

    def _look_at_callback(self, visit: Visit, step: CallbackStep) -> bool:
        if visit.stop:
            return self._cancelled(visit)
        call_id = visit.task_id(self.run.id)
        outcome = self.facts.outcomes.get(call_id) if step.asks else None
        if visit.key in self.facts.events:
            if step.asks and outcome is None:
                self.commands[call_id] = Stop(call_id)  # what was to be asked is answered
            return self._complete(visit)
        if step.timeout is not None and visit.due_at is None:
            return self._begin(visit, step)
        if step.session is not None and visit.key not in self.facts.waiting:
            try:
                self._await(visit, step.session)
            except BadExpression as error:
                return self._fail(visit, error.code, error.detail)
        if visit.due_at is not None and self.facts.now >= visit.due_at:
            if step.on_timeout is not None:
                return self._complete(visit, "timeout")
            return self._fail(visit, "callback_timeout")
        if step.asks and call_id in self.facts.missing:
            return self._ask(visit, step)
        if outcome is not None and not outcome.completed:
            return self._fail(visit, outcome.code or "call_failed")
        return False

    def _look_at_chains(self, visit: Visit, step: ParallelStep | MapStep) -> bool:
        if visit.stop:
            inside = any(self._is_inside(self.visits[key], visit) for key in self.open)
            return False if inside else self._cancelled(visit)
        of = len(step.parallel) if isinstance(step, ParallelStep) else visit.size
        needed = step.needed(of)
        succeeded = sum(how == "completed" for _, how in visit.ended)
        failed = len(visit.ended) - succeeded
        if succeeded >= needed:
            if step.losers == "cancel":
                self._stop_inside(visit)
            return self._complete(visit)
        if failed > of - needed:
            self._stop_inside(visit)
            if any(self._is_inside(self.visits[key], visit) for key in self.open):
                # It has failed when all that it started is over: what completes late counts.
                return False
            return self._fail(visit, "branch_failed")
        return isinstance(step, MapStep) and self._fill(visit, step)

    def _fill(self, visit: Visit, step: MapStep) -> bool:
        """Enter further chains of a map, as many at once as it may have."""
        begun = self._begun(visit)
        room = step.limit - (begun - len(visit.ended))
        entering = range(begun, min(begun + max(room, 0), visit.size))
        for index in entering:
            self._enter_chain(step.id, (*visit.scope, visit.visit, index))
        return bool(entering)

    def _begun(self, visit: Visit) -> int:
        step = self.definition.step(visit.step)
        first = step.steps[0].id
        scope = (*visit.scope, visit.visit)
        index = 0
        while (first, (*scope, index)) in self.counts:
            index += 1
        return index

    # - moving on -

    def _enter_chain(self, chain: str, scope: tuple[int, ...]) -> None:
        self.coming.append((self.definition.chains[chain], scope))

    def _enter_all(self) -> None:
        while self.coming:
            self._enter(*self.coming.popleft())

    def _enter(self, step_id: str, scope: tuple[int, ...]) -> None:
        """Come to a step."""
        if len(self.visits) >= MAX_VISITS:
            detail = f"It has made {MAX_VISITS} steps."
            self._give_up({"code": "too_many_visits", "detail": detail}, undo=False)
            return
        number = self.counts.get((step_id, scope), 0) + 1
        self.counts[(step_id, scope)] = number
        visit = self._put(Visit(step_id, scope, number, started_at=self.facts.now))
        self.open.append(visit.key)
        self._begin(visit, self.definition.step(step_id))

    def _begin(self, visit: Visit, step: Any) -> bool:
        """What a step does first; True: the visit has changed."""
        try:
            if isinstance(step, TaskStep):
                return self._submit(visit)
            if isinstance(step, WorkflowStep):
                return self._start_child(visit)
            if isinstance(step, ConditionStep | SwitchStep):
                return self._complete(visit, self._choice(visit, step))
            if isinstance(step, DelayStep):
                self._put(visit, due_at=self._due(visit, step))
            elif isinstance(step, CallbackStep):
                if step.timeout is not None:
                    due_at = self.facts.now + dt.timedelta(seconds=seconds(step.timeout))
                    visit = self._put(visit, due_at=due_at)
                if step.session is not None:
                    self._await(visit, step.session)
                if step.asks:
                    # What waits for the answer is there before anything is asked.
                    self._ask(visit, step)
            elif isinstance(step, MapStep):
                over = self._value(step.map, visit)
                if not isinstance(over, list):
                    raise BadExpression("What a map goes over must be a list.")
                if len(over) > MAX_MAPPED:
                    raise BadExpression(f"A map goes over {MAX_MAPPED} entries at most.")
                self._put(visit, size=len(over))
            else:
                for name in step.parallel:
                    self._enter_chain(f"{step.id}.{name}", (*visit.scope, visit.visit))
        except BadExpression as error:
            self._fail(self.visits[visit.key], error.code, error.detail)
        return True

    def _choice(self, visit: Visit, step: ConditionStep | SwitchStep) -> str:
        missing = step.missing or self.definition.workflow.missing
        if isinstance(step, ConditionStep):
            return "then" if self._is_true(step.condition, visit, missing) else "else"
        for at, case in enumerate(step.switch):
            if self._is_true(case.when, visit, missing):
                return f"case {at + 1}"
        return "default"

    def _is_true(self, expression: str, visit: Visit, missing: str) -> bool:
        try:
            value = self._value(expression, visit)
        except BadExpression as error:
            if error.missing and missing == "false":
                return False
            raise
        if not isinstance(value, bool):
            raise BadExpression("A condition must be true or false.")
        return value

    def _due(self, visit: Visit, step: DelayStep) -> dt.datetime:
        now, wait = self.facts.now, step.delay
        if wait.duration is not None:
            return now + dt.timedelta(seconds=seconds(wait.duration))
        if wait.working:
            return self.facts.opens(now)
        zone = ZoneInfo(wait.zone or self.facts.zone)
        until = str(wait.until)
        if not until.startswith("="):
            hour, minute = map(int, until.split(":"))
            local = now.astimezone(zone)
            at = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
            if at <= local:
                at = (at.replace(tzinfo=None) + dt.timedelta(days=1)).replace(tzinfo=zone)
            return at.astimezone(dt.UTC)
        value = self._value(until[1:], visit)
        try:
            moment = dt.datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise BadExpression("A delay until an expression needs an ISO 8601 time.") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(dt.UTC)

    def _submit(self, visit: Visit, asked: Asked | None = None) -> bool:
        """The task of the visit's present try; False: it is only said once more."""
        if asked is None:
            step: TaskStep = self.definition.step(visit.step)
            asked = step.compensate if visit.undo else step
        assert asked is not None
        task_id = visit.task_id(self.run.id)
        try:
            payload = filled(asked.payload, self._data_for(asked.payload, visit))
        except BadExpression as error:
            return self._fail(visit, error.code, error.detail)
        if _size(payload) > MAX_FILLED_BYTES:
            detail = f"Its payload is larger than {MAX_FILLED_BYTES} bytes."
            return self._fail(visit, "too_large", detail)
        self.commands[task_id] = Submit(task_id, asked, payload, visit)
        return False

    def _start_child(self, visit: Visit) -> bool:
        step: WorkflowStep = self.definition.step(visit.step)
        child_id = visit.task_id(self.run.id)
        try:
            given = filled(step.input, self._data_for(step.input, visit))
        except BadExpression as error:
            return self._fail(visit, error.code, error.detail)
        self.commands[child_id] = StartRun(child_id, step.workflow, given, visit)
        return False

    def _await(self, visit: Visit, expression: str) -> None:
        session_id = self._value(expression, visit)
        if not isinstance(session_id, str):
            raise BadExpression("A session is named by its id.")
        takes = self.definition.step(visit.step).takes
        self.commands[f"await {visit.key}"] = Await(session_id, visit, takes)

    def _ask(self, visit: Visit, step: CallbackStep) -> bool:
        if step.ask is not None:
            return self._submit(visit, step.ask)
        assert step.call is not None
        task_id = visit.task_id(self.run.id)
        try:
            said = filled(step.call.model_dump(), self._data_for(step.call.model_dump(), visit))
        except BadExpression as error:
            return self._fail(visit, error.code, error.detail)
        self.commands[task_id] = CallOut(task_id, said["url"], said["body"], visit)
        return False

    def _complete(self, visit: Visit, way: str = "next") -> bool:
        if visit.undo or visit.stop:
            self._put(visit, state=VisitState.COMPLETED, finished_at=self.facts.now, due_at=None)
            return True
        self._put(
            visit,
            state=VisitState.COMPLETED,
            finished_at=self.facts.now,
            due_at=None,
            way=way,
            code=None,
        )
        self._follow(visit, way, "completed")
        return True

    def _fail(self, visit: Visit, code: str, detail: str | None = None) -> bool:
        failed = self._put(
            visit, state=VisitState.FAILED, finished_at=self.facts.now, due_at=None, code=code
        )
        if visit.undo or visit.stop:
            return True
        policy = getattr(self.definition.step(visit.step), "on_failure", "fail")
        if policy == "continue":
            self._put(failed, way="next")
            self._follow(visit, "next", "completed")
        elif isinstance(policy, Goto):
            self._put(failed, way="failure")
            self._follow(visit, "failure", "completed")
        elif policy == "compensate":
            self._give_up(self._error(visit, code, detail), undo=True)
        else:
            place = self.definition.places[visit.step]
            self._end_chain(place.chain, visit.scope, "failed", self._error(visit, code, detail))
        return True

    @staticmethod
    def _error(visit: Visit, code: str, detail: str | None) -> Document:
        said = detail or f"The step {visit.step} failed."
        return {"code": code, "detail": said, "step": visit.step}

    def _cancelled(self, visit: Visit) -> bool:
        self._put(visit, state=VisitState.CANCELLED, finished_at=self.facts.now, due_at=None)
        return True

    def _follow(self, visit: Visit, way: str, how: str) -> None:
        place = self.definition.places[visit.step]
        target = targets(place)[way]
        if target is None:
            self._end_chain(place.chain, visit.scope, how)
        else:
            self.coming.append((target, visit.scope))

    def _end_chain(
        self, chain: str, scope: tuple[int, ...], how: str, error: Document | None = None
    ) -> None:
        if chain == "":
            if how == "failed":
                self._give_up(error or {}, undo=False)
            return
        step_id, _, branch = chain.partition(".")
        if branch:
            parent_scope, number, name = scope[:-1], scope[-1], branch
        else:
            parent_scope, number, name = scope[:-2], scope[-2], str(scope[-1])
        parent = self.visits[Visit(step_id, parent_scope, number).key]
        if error is not None and parent.code is None:
            parent = self._put(parent, code=error["code"])
        self._put(parent, ended=(*parent.ended, (name, how)))

    def _give_up(self, error: Document, *, undo: bool) -> None:
        """Stop whatever is open; the run ends, with this error, when it has stopped."""
        if self.run.error is not None:
            return
        self.run = replace(self.run, error=error, undo=undo)
        self.coming.clear()
        for key in list(self.open):
            self._stop(self.visits[key])

    def _stop(self, visit: Visit) -> None:
        if visit.stop or not visit.state.open:
            return
        self._put(visit, stop=True)
        step = self.definition.step(visit.step)
        task_id = visit.task_id(self.run.id)
        self.commands.pop(task_id, None)
        if isinstance(step, TaskStep | WorkflowStep) or getattr(step, "asks", False):
            self.commands[task_id] = Stop(task_id, run=isinstance(step, WorkflowStep))

    def _stop_inside(self, visit: Visit) -> None:
        for key in list(self.open):
            if self._is_inside(self.visits[key], visit):
                self._stop(self.visits[key])

    def _is_inside(self, visit: Visit, outer: Visit) -> bool:
        """Whether an open visit belongs to a chain of another, however deep."""
        scope = (*outer.scope, outer.visit)
        if not visit.state.open or visit.scope[: len(scope)] != scope:
            return False
        chain = self.definition.places[visit.step].chain
        while chain:
            step_id = chain.partition(".")[0]
            if step_id == outer.step:
                return True
            chain = self.definition.places[step_id].chain
        return False

    # - the end -

    def _end(self) -> None:
        """Nothing is open: the run ends, or what completed is undone first, last first."""
        run = self.run
        if run.undo and self._undo_next():
            self.run = replace(self.run, state=RunState.COMPENSATING)
            return
        if run.error is None:
            try:
                output = filled(
                    run_output := self.definition.workflow.output,
                    self._data_for(run_output, Visit("", ())),
                )
            except BadExpression as error:
                self.run = replace(
                    run,
                    state=RunState.FAILED,
                    error={"code": error.code, "detail": f"Its output: {error.detail}"},
                )
                return
            if _size(output) > MAX_FILLED_BYTES:
                detail = f"Its output is larger than {MAX_FILLED_BYTES} bytes."
                too_large = {"code": "too_large", "detail": detail}
                self.run = replace(run, state=RunState.FAILED, error=too_large)
                return
            self.run = replace(run, state=RunState.COMPLETED, output=output)
            return
        if any(each.undo and each.state is VisitState.FAILED for each in self.visits.values()):
            detail = f"Not all that completed could be undone after {run.error['code']}."
            undone = {"code": "compensation_failed", "detail": detail}
            self.run = replace(run, state=RunState.FAILED, error=run.error | undone)
            return
        ended = RunState.CANCELLED if run.error["code"] == "cancelled" else RunState.FAILED
        self.run = replace(run, state=ended)

    def _undo_next(self) -> bool:
        for visit in reversed(list(self.visits.values())):
            if visit.undo or visit.state is not VisitState.COMPLETED:
                continue
            step = self.definition.step(visit.step)
            undoing = Visit(visit.step, visit.scope, visit.visit, undo=True)
            if not isinstance(step, TaskStep) or step.compensate is None:
                continue
            if undoing.key in self.visits:
                continue
            undoing = self._put(replace(undoing, started_at=self.facts.now))
            self.open.append(undoing.key)
            self._submit(undoing)
            if self.visits[undoing.key].state.open:
                return True
            self.open.remove(undoing.key)
        return False

    # - data -

    def _value(self, expression: str, visit: Visit) -> Any:
        return evaluate(expression, self._data_for("=" + expression, visit))

    def _data_for(self, value: Any, visit: Visit) -> dict[str, Any]:
        """What the expressions of a value can be over: only what they name is read."""
        said = " ".join(_texts(value))
        names = {"data": set[str](), "steps": set[str]()}
        for root, name in _NAMED.findall(said):
            names[root].add(name)
        data: dict[str, Any] = {
            "input": self.run.input,
            "run": {"id": self.run.id, "workflow": self.definition.id},
            "now": self.facts.now,
            "data": {},
            "steps": {},
        }
        for name in names["steps"]:
            seen = self._latest(visit, step=name)
            if seen is not None:
                data["steps"][name] = {
                    "state": seen.state.value,
                    "code": seen.code,
                    "visits": seen.visit,
                    "tries": seen.tries,
                    "way": seen.way,
                    "result": self._result(seen),
                }
        for name in names["data"]:
            seen = self._latest(visit, result=name)
            if seen is not None:
                data["data"][name] = self._result(seen)
        if re.search(r"\b(?:item|index)\b", said):
            data |= self._mapped(visit)
        return data

    def _latest(self, seen_from: Visit, *, step: str = "", result: str = "") -> Visit | None:
        """The newest visit of a step, or that gave a result of a name, as far as it can be
        seen: of the same chain, or of one around it; and what branches of a parallel did."""
        scope = seen_from.scope
        found: Visit | None = None
        for visit in self.visits.values():
            if visit.undo or visit.key == seen_from.key or (step and visit.step != step):
                continue
            if result and (
                visit.state is not VisitState.COMPLETED
                or visit.way == "timeout"  # nothing came
                or getattr(self.definition.step(visit.step), "result", None) != result
            ):
                continue
            if visit.scope == scope[: len(visit.scope)] or (
                visit.scope[: len(scope)] == scope and not self._in_map(visit, len(scope))
            ):
                found = visit
        return found

    def _in_map(self, visit: Visit, depth: int) -> bool:
        """Whether there is a map between a visit and what it is inside of at this depth."""
        chain, left = self.definition.places[visit.step].chain, len(visit.scope)
        while chain and left > depth:
            step_id, _, branch = chain.partition(".")
            if not branch:
                return True
            left -= 1
            chain = self.definition.places[step_id].chain
        return False

    def _mapped(self, visit: Visit) -> dict[str, Any]:
        """The entry that a chain of a map is for."""
        scope, chain = visit.scope, self.definition.places[visit.step].chain
        while chain:
            step_id, _, branch = chain.partition(".")
            if branch:
                scope = scope[:-1]
            else:
                outer = self.visits[Visit(step_id, scope[:-2], scope[-2]).key]
                over = self._value(self.definition.step(step_id).map, outer)
                return {"item": over[scope[-1]], "index": scope[-1]}
            chain = self.definition.places[step_id].chain
        return {}

    def _result(self, visit: Visit) -> Any:
        step = self.definition.step(visit.step)
        if isinstance(step, CallbackStep):
            return self.facts.events.get(visit.key)
        if isinstance(step, MapStep):
            return [self._last_of(step, visit, index) for index in range(visit.size)]
        if isinstance(step, ParallelStep):
            return dict(visit.ended)
        if not isinstance(step, TaskStep | WorkflowStep):
            return None
        outcome = self.facts.outcomes.get(visit.task_id(self.run.id))
        return None if outcome is None else outcome.result

    def _last_of(self, step: MapStep, visit: Visit, index: int) -> Any:
        scope = (*visit.scope, visit.visit, index)
        last = None
        for each in self.visits.values():
            if each.scope == scope and each.state is VisitState.COMPLETED:
                inner = self.definition.step(each.step)
                if isinstance(inner, TaskStep | WorkflowStep | CallbackStep):
                    last = each
        return None if last is None else self._result(last)

    def _put(self, visit: Visit, **changes: Any) -> Visit:
        fence = self.run.fence + 1
        if not visit.began:
            changes["began"] = fence
        if "state" in changes and not changes["state"].open:
            changes["over"] = fence
        changed = replace(visit, **changes)
        self.visits[changed.key] = changed
        return changed


def _size(value: Any) -> int:
    """About how many bytes a value takes."""
    return len(json.dumps(value, default=str))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
