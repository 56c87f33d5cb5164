"""Runs of workflows, as they are kept; the shell around `advance`.

Keeps secret how a run takes effect once. What it does next is written into it by one
compare-and-set on its fence, before any of it is done; the tasks of its steps have ids made of
(run, step, visit, try), so that whoever does it again does the same. Nobody has to hear that a
step has ended: whoever ends one advances its run, and the rescuer advances those that are due.

Collection `runs`, one document per run:

    _id          32 hex digits, rising with time; of a child run "{run}.{step}:{visit}.{try}"
    workflow, version
    idempotency  unique: hash of caller, workflow and key; the run's id where none came
    fingerprint  hash of the input
    caller       who started it; `trigger` by what: "api", "event", "schedule", "workflow"
    state        running, paused, compensating, completed, failed, cancelled
    fence        rises with each change
    input, output, error
    visits       {visit key: visit}: every step that control came to (`advance.Visit`)
    cancel       asked to be cancelled; `undo` what completed is to be undone
    parent       id of the run that it is a step of
    due_at       when it is looked at whatever is heard; gone once it is final or paused
    created_at, finished_at
    erased       true for a shell, left of a customer's run
    kept_at      when what its steps resulted in was last seen to be kept; gone once it is final
    expire_at    set once it is final

Collection `run_events`, what came for callbacks:

    _id          "{run}.{visit key}": the first one counts
    run_id, payload, at
    unseen_at    when it came, until the run was advanced with it
    expire_at    as the run's

Collection `run_waits`: {_id: "{run} {visit key}", run_id, session_id, takes, since}: runs that
wait, since then, for the next message of a session; with `takes` it is theirs to answer.

Written by this module only.
"""

import datetime as dt
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.advance import (
    Await,
    CallOut,
    Command,
    Facts,
    Outcome,
    Run,
    RunState,
    StartRun,
    Stop,
    Submit,
    Visit,
    advance,
    retried,
)
from orchestrator.clock import Clock
from orchestrator.definition_store import DefinitionStore, WorkflowNotFound
from orchestrator.definitions import (
    Asked,
    CallbackStep,
    Definition,
    TaskStep,
    seconds,
)
from orchestrator.errors import (
    Conflict,
    IdempotencyKeyReused,
    Invalid,
    NotFound,
    StoreUnavailable,
    TaskIsFinal,
)
from orchestrator.keys import SigningKey
from orchestrator.logs import log
from orchestrator.metrics import Metrics
from orchestrator.pages import newest_first, oldest_first
from orchestrator.settings import Settings
from orchestrator.tasks import (
    BY_ID,
    Document,
    Priority,
    Request,
    State,
    Task,
    TaskStore,
    digest,
    earlier_than,
    ensure_index,
    new_id,
    store_errors,
)

if TYPE_CHECKING:
    from orchestrator.coordinator import Coordinator

CALL_OUT: Final = "call_out"
# Others may change a run while it is advanced; each change is a new look.
TRIES: Final = 50
MAX_DEPTH: Final = 5


class RunNotFound(NotFound):
    """No such run."""

    code = "run_not_found"
    title = "No such run"


class CallbackRefused(NotFound):
    """Nobody waits for this, or the token is not the one that was given for it."""

    code = "callback_refused"
    title = "No such callback"


class CallbackUsed(Conflict):
    """The callback has come already; the first one counts."""

    code = "callback_used"
    title = "This callback has come already"


@dataclass(frozen=True)
class StoredRun:
    """A run as it was read."""

    run: Run
    workflow: str
    version: int
    fence: int
    caller: str
    trigger: str
    created_at: dt.datetime
    finished_at: dt.datetime | None = None
    parent: str | None = None

    @property
    def id(self) -> str:
        return self.run.id

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "StoredRun":
        """Read what the collection holds."""
        run = Run(
            id=document["_id"],
            state=RunState(document["state"]),
            input=document["input"],
            visits=tuple(Visit.from_document(each) for each in document["visits"].values()),
            cancel=document["cancel"],
            undo=document["undo"],
            error=document.get("error"),
            output=document.get("output"),
            due_at=document.get("due_at"),
            fence=document["fence"],
        )
        return cls(
            run=run,
            workflow=document["workflow"],
            version=document["version"],
            fence=document["fence"],
            caller=document["caller"],
            trigger=document["trigger"],
            created_at=document["created_at"],
            finished_at=document.get("finished_at"),
            parent=document.get("parent"),
        )


class _Outcomes(Mapping[str, Outcome]):
    """How tasks and child runs ended; those that are not known yet are read when asked for."""

    def __init__(self, known: dict[str, Outcome | None], read: Callable[[str], Outcome | None]):
        self._known = known
        self._read = read

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self._known:
            self._known[key] = self._read(key)
        outcome = self._known[key]
        return default if outcome is None else outcome

    def __getitem__(self, key: str) -> Outcome:
        outcome: Outcome | None = self.get(key)
        if outcome is None:
            raise KeyError(key)
        return outcome

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class Workflows:
    """Runs of workflows. One per process. Raises StoreUnavailable as the task store does."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        store: TaskStore,
        definitions: DefinitionStore,
        coordinator: "Coordinator",
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._runs = database["runs"]
        self._events = database["run_events"]
        self._waits = database["run_waits"]
        self._key = SigningKey(database, "callbacks")
        self._clock = clock
        self._store = store
        self._definitions = definitions
        self._coordinator = coordinator
        self._metrics = metrics
        self._settings = settings
        self._kept = dt.timedelta(days=settings.task_retention_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._runs, "change", "_id fence")
        ensure_index(self._runs, "idempotency", "idempotency", unique=True)
        ensure_index(self._runs, "due", "due_at")
        ensure_index(self._runs, "kept", "kept_at")
        ensure_index(self._runs, "list_workflow", "workflow _id")
        ensure_index(self._runs, "list_state", "state _id")
        ensure_index(self._runs, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._events, "run", "run_id")
        ensure_index(self._events, "unseen", "unseen_at")
        ensure_index(self._events, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._waits, "session", "session_id")
        ensure_index(self._waits, "run", "run_id")

    # -- starting ----------------------------------------------------------------------

    def start(
        self,
        workflow: str,
        given: Document,
        *,
        caller: str,
        trigger: str = "api",
        key: str | None = None,
        version: int | None = None,
    ) -> tuple[StoredRun, bool]:
        """Start a run durably; False for a repetition of the same key.

        Raises:
            WorkflowNotFound: there is no such workflow.
            Invalid: the input lacks what the workflow needs.
            IdempotencyKeyReused: the key came before with another input.
        """
        definition = self._definitions.get(workflow, version)
        run_id = new_id(self._clock.now())
        unique = run_id if key is None else digest(f"{caller}\n{workflow}\n{key}")
        stored, created = self._insert(
            run_id, definition, given, caller=caller, trigger=trigger, unique=unique
        )
        if created:
            log.info("run.started", run_id=stored.id, workflow=workflow, trigger=trigger)
            self.advance(stored.id)
        return stored, created

    def _insert(
        self,
        run_id: str,
        definition: Definition,
        given: Document,
        *,
        caller: str,
        trigger: str,
        unique: str,
        parent: str | None = None,
        error: Document | None = None,
    ) -> tuple[StoredRun, bool]:
        missing = [name for name in definition.workflow.needs if name not in given]
        if missing and error is None:
            raise Invalid(
                f"The workflow needs {', '.join(missing)}.",
                errors=[
                    {"pointer": f"/input/{name}", "detail": "The workflow needs it."}
                    for name in missing
                ],
            )
        now = self._clock.now()
        document: Document = {
            "_id": run_id,
            "workflow": definition.id,
            "version": definition.version,
            "idempotency": unique,
            "fingerprint": digest(repr(sorted(given.items()))),
            "caller": caller,
            "trigger": trigger,
            "state": RunState.RUNNING.value,
            "fence": 0,
            "input": given,
            "visits": {},
            "cancel": False,
            "undo": False,
            "parent": parent,
            "created_at": now,
        }
        if error is None:
            document |= {"due_at": now, "kept_at": now}
        else:
            document |= self._ended(RunState.CANCELLED) | {"error": error}
        try:
            with store_errors():
                self._runs.insert_one(document)
        except DuplicateKeyError:
            with store_errors():
                known = self._runs.find_one({"idempotency": unique})
            if known is None:
                raise
            if known["fingerprint"] != document["fingerprint"] and parent is None:
                raise IdempotencyKeyReused() from None
            return StoredRun.from_document(known), False
        return StoredRun.from_document(document), True

    # -- reading ---------------------------------------------------------------------

    def get(self, run_id: str) -> StoredRun:
        """Read a run.

        Raises:
            RunNotFound: no such run.
        """
        with store_errors():
            document = self._runs.find_one({"_id": run_id})
        if document is None:
            raise RunNotFound()
        return StoredRun.from_document(document)

    def page(
        self,
        *,
        workflow: str | None = None,
        state: RunState | None = None,
        limit: int,
        position: str | None = None,
        since: dt.datetime | None = None,
    ) -> tuple[list[StoredRun], str | None]:
        """Runs, the newest first, and where the next page begins; None at the end.

        Raises:
            ValueError: the position is none that was given here.
        """
        equal: Document = {}
        if workflow is not None:
            equal = {"workflow": workflow}
        elif state is not None:
            equal = {"state": state.value}

        def fits(document: Document) -> bool:
            return state is None or document["state"] == state.value

        with store_errors():
            page = newest_first(
                self._runs,
                equal,
                BY_ID,
                now=self._clock.now(),
                limit=limit,
                position=position,
                since=since,
                wanted=fits if workflow is not None and state is not None else None,
            )
        return [StoredRun.from_document(each) for each in page.documents], page.next

    def steps(self, stored: StoredRun) -> list[Document]:
        """Every visit of a run's steps, with the task that it is: what a status shows."""
        definition = self._definitions.get(stored.workflow, stored.version)
        tasks = {
            visit.key: visit.task_id(stored.id)
            for visit in stored.run.visits
            if visit.undo
            or definition.step(visit.step).kind in ("task", "workflow")
            or getattr(definition.step(visit.step), "asks", False)
        }
        found = self._store.many(list(tasks.values()))
        shown = []
        for visit in stored.run.visits:
            task = found.get(tasks.get(visit.key, ""))
            shown.append(
                {
                    "key": visit.key,
                    "step": visit.step,
                    "kind": "undo" if visit.undo else definition.step(visit.step).kind,
                    "state": visit.state.value,
                    "visit": visit.visit,
                    "tries": visit.tries,
                    "way": visit.way or None,
                    "code": visit.code,
                    "started_at": visit.started_at,
                    "finished_at": visit.finished_at,
                    "due_at": visit.due_at,
                    "task_id": tasks.get(visit.key),
                    "attempts": task.attempts if task else None,
                    "task_state": task.state.value if task else None,
                    "result": task.result if task else None,
                    "error": task.error if task else None,
                }
            )
        return shown

    # -- advancing -------------------------------------------------------------------

    def advance(self, run_id: str, ended: Task | None = None) -> None:
        """Do what is next for a run; harmless at any time, and for a run that is not there.

        `ended` is a task of it that has just ended, and need not be read again.
        """
        for _ in range(TRIES):
            with store_errors():
                document = self._runs.find_one({"_id": run_id})
            if document is None:
                return
            stored = StoredRun.from_document(document)
            if stored.run.state.final or stored.run.state is RunState.PAUSED:
                return
            definition = self._definitions.get(stored.workflow, stored.version)
            facts = self._facts(stored, definition, ended)
            run, commands = advance(stored.run, definition, facts)
            if not self._write(stored, run):
                continue  # it was changed meanwhile: look again
            over = [self._carry_out(stored, command) for command in commands]
            if run.state.final:
                self._end(stored, run)
                return
            if not any(over):
                return
        log.warning("run.contended", run_id=run_id)

    def advance_due(self, limit: int) -> int:
        """Advance the runs that are due, and those that an event came for; how many."""
        now = earlier_than(self._clock.now())
        with store_errors():
            due = [
                each["_id"] for each in self._runs.find({"due_at": now}, {"_id": 1}).limit(limit)
            ]
            heard = list(self._events.find({"unseen_at": now}, {"run_id": 1}).limit(limit))
        for run_id in due:
            self._safely(run_id, partial(self.advance, run_id))
        for event in heard:
            self._safely(event["run_id"], partial(self._heard, event["_id"], event["run_id"]))
        return len(due) + len(heard)

    def keep_results(self, limit: int) -> int:
        """See that what the steps of runs that are under way resulted in outlives them, however
        long they last, of at most so many runs; how many needed it."""
        kept, now = self._kept, self._clock.now()
        # Each is looked at four times in the time that it is kept for.
        with store_errors():
            found = list(self._runs.find({"kept_at": earlier_than(now - kept / 4)}).limit(limit))
        for document in found:
            stored = StoredRun.from_document(document)
            ids = [visit.task_id(stored.id) for visit in stored.run.visits]
            self._store.keep(ids, now + kept)
            with store_errors():
                children = {"_id": {"$in": ids}, "expire_at": {"$lt": now + kept}}
                self._runs.update_many(children, {"$set": {"expire_at": now + kept}})
                self._runs.update_one(
                    {"_id": stored.id, "kept_at": document["kept_at"]}, {"$set": {"kept_at": now}}
                )
        return len(found)

    def _safely(self, run_id: str, step: Callable[[], None]) -> None:
        """One run that cannot be advanced must not keep the others waiting."""
        try:
            step()
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error("run.not_advanced", run_id=run_id, error=type(error).__name__)
            self._put_off(run_id)

    def _put_off(self, run_id: str) -> None:
        later = self._clock.now() + dt.timedelta(minutes=1)
        with store_errors():
            self._runs.update_one({"_id": run_id}, {"$set": {"due_at": later}})

    def _facts(self, stored: StoredRun, definition: Definition, ended: Task | None) -> Facts:
        """What is true now of what the run waits for; other results are read when needed."""
        tasks, runs = set(), set()
        for visit in stored.run.visits:
            if not visit.state.open:
                continue
            step = definition.step(visit.step)
            ident = visit.task_id(stored.id)
            if visit.undo or isinstance(step, TaskStep):
                tasks.add(ident)
            elif step.kind == "workflow":
                runs.add(ident)
            elif isinstance(step, CallbackStep) and step.asks:
                tasks.add(ident)
        known: dict[str, Outcome | None] = {}
        if ended is not None and ended.id in tasks:
            known[ended.id] = _outcome(ended)
        if unread := list(tasks - known.keys()):
            for ident, task in self._store.many(unread).items():
                known[ident] = _outcome(task)
        if runs:
            with store_errors():
                for document in self._runs.find({"_id": {"$in": list(runs)}}):
                    known[document["_id"]] = _outcome_of_run(document)
        missing = frozenset((tasks | runs) - known.keys())
        known |= dict.fromkeys(missing)
        events: Document = {}
        waiting: set[str] = set()
        if any(isinstance(place.step, CallbackStep) for place in definition.places.values()):
            with store_errors():
                for document in self._waits.find({"run_id": stored.id}, {"_id": 1}):
                    waiting.add(document["_id"].partition(" ")[2])
                for document in self._events.find({"run_id": stored.id}):
                    key = document["_id"].removeprefix(f"{stored.id}.")
                    events[key] = document["payload"]
        return Facts(
            now=self._clock.now(),
            outcomes=_Outcomes(known, self._outcome_of),
            missing=missing,
            events=events,
            waiting=frozenset(waiting),
            zone=self._settings.business_zone,
            opens=self._settings.working_time.opens,
            look_s=self._settings.run_look_s,
        )

    def _outcome_of(self, ident: str) -> Outcome | None:
        task = self._store.many([ident]).get(ident)
        if task is not None:
            return _outcome(task)
        with store_errors():
            document = self._runs.find_one({"_id": ident})
        return None if document is None else _outcome_of_run(document)

    def _write(self, stored: StoredRun, run: Run) -> bool:
        """The compare-and-set: what changed, and nothing if nothing did."""
        before = {visit.key: visit for visit in stored.run.visits}
        changes: Document = {
            f"visits.{visit.key}": visit.to_document()
            for visit in run.visits
            if before.get(visit.key) != visit
        }
        for name in ("cancel", "undo", "error", "output"):
            if getattr(run, name) != getattr(stored.run, name):
                changes[name] = getattr(run, name)
        if run.state is not stored.run.state:
            changes["state"] = run.state.value
        update: Document = {"$set": changes}
        now = self._clock.now()
        if run.state.final:
            changes |= self._ended(run.state)
            update["$unset"] = {"due_at": "", "kept_at": ""}
        elif changes or stored.run.due_at is None or stored.run.due_at <= now:
            changes["due_at"] = run.due_at
        if not changes:
            return True
        update["$inc"] = {"fence": 1}
        with store_errors():
            return (
                self._runs.update_one({"_id": stored.id, "fence": stored.fence}, update)
            ).matched_count == 1

    def _ended(self, state: RunState) -> Document:
        now = self._clock.now()
        return {"state": state.value, "finished_at": now, "expire_at": now + self._kept}

    def _carry_out(self, stored: StoredRun, command: Command) -> bool:
        """Do it; whether what it is about may be over already: refused, or stopped."""
        if isinstance(command, Submit):
            return self._submit(stored, command.task_id, command.asked, command.payload)
        if isinstance(command, StartRun):
            return self._start_child(stored, command)
        if isinstance(command, Await):
            wait = {
                "_id": f"{stored.id} {command.visit.key}",
                "run_id": stored.id,
                "session_id": command.session_id,
                "takes": command.takes,
                "since": self._clock.now(),
            }
            with store_errors(), suppress(DuplicateKeyError):
                self._waits.insert_one(wait)
            return False
        if isinstance(command, CallOut):
            body = command.body | {
                "run_id": stored.id,
                "callback": self.callback_path(stored, command.visit),
            }
            payload = {"url": command.url, "body": json.dumps(body)}
            return self._submit(stored, command.task_id, Asked(task=CALL_OUT), payload)
        self._stop(stored, command)
        return True

    def _submit(self, stored: StoredRun, task_id: str, asked: Asked, payload: Document) -> bool:
        request = Request(
            type=asked.task,
            payload=payload,
            capabilities=tuple(asked.capabilities),
            prefers=tuple(asked.prefers),
            agent=asked.agent,
            priority=Priority(asked.priority),
            strategy=asked.strategy,
            caller=stored.caller,
            deadline_s=None if asked.timeout is None else seconds(asked.timeout),
        )
        return self._coordinator.submit_step(request, task_id, stored.id).state.final

    def _start_child(self, stored: StoredRun, command: StartRun) -> bool:
        error: Document | None = None
        version: int | None = None
        try:
            definition = self._definitions.get(command.workflow, version)
            if command.run_id.count(".") > 2 * MAX_DEPTH:
                error = {"code": "too_deep", "detail": "Workflows nest too deep."}
        except WorkflowNotFound as gone:
            definition = self._definitions.get(stored.workflow, stored.version)
            error = {"code": gone.code, "detail": gone.detail}
        missing = [name for name in definition.workflow.needs if name not in command.input]
        if missing and error is None:
            error = {"code": "invalid_request", "detail": f"It needs {', '.join(missing)}."}
        child, created = self._insert(
            command.run_id,
            definition,
            command.input,
            caller=stored.caller,
            trigger="workflow",
            unique=command.run_id,
            parent=stored.id,
            error=error,
        )
        if created and error is None:
            self.advance(child.id)  # it advances this one, should it end at once
            return False
        return child.run.state.final

    def _stop(self, stored: StoredRun, command: Stop) -> None:
        """Cancel what a run gave up. What was never stored is stored as cancelled, so that
        whoever is late to store it finds it so."""
        if command.run:
            try:
                self.cancel(command.id)
            except RunNotFound:
                definition = self._definitions.get(stored.workflow, stored.version)
                self._insert(
                    command.id,
                    definition,
                    {},
                    caller=stored.caller,
                    trigger="workflow",
                    unique=command.id,
                    parent=stored.id,
                    error={"code": "cancelled", "detail": "Cancelled."},
                )
            except Conflict:
                pass  # it has ended: its outcome says how
            return
        self._coordinator.stop_step(command.id, stored.id, stored.caller)

    def _end(self, stored: StoredRun, run: Run) -> None:
        log.info(
            f"run.{run.state.value}",
            run_id=run.id,
            workflow=stored.workflow,
            steps=len(run.visits),
            code=(run.error or {}).get("code"),
        )
        self._metrics.run_ended(stored.workflow, run.state.value)
        with store_errors():
            self._waits.delete_many({"run_id": run.id})
            kept = self._ended(run.state)["expire_at"]
            self._events.update_many({"run_id": run.id}, {"$set": {"expire_at": kept}})
        if stored.parent is not None:
            self.advance(stored.parent)

    # -- a customer's runs -----------------------------------------------------------

    def between(self, start: dt.datetime, end: dt.datetime) -> Iterator[Document]:
        """The documents of runs that began in a stretch of time, oldest first, each with the
        `payloads` that came for its callbacks."""
        with store_errors():
            for document in oldest_first(self._runs, {}, BY_ID, start=start, end=end):
                came = self._events.find({"run_id": document["_id"]}, {"payload": 1})
                yield document | {"payloads": [each["payload"] for each in came]}

    def erase(self, run_id: str) -> bool:
        """Leave of a run that has ended what says nothing of anybody; False where nothing was
        left to erase. Its steps' tasks are the task store's to erase.
        """
        with store_errors():
            self._events.delete_many({"run_id": run_id})
            self._waits.delete_many({"run_id": run_id})
            stored = self._runs.find_one({"_id": run_id}, {"fence": 1, "erased": 1})
            if stored is None or stored.get("erased"):
                return False
            fields: Document = {
                "input": {},
                "output": None,
                "error": None,
                "visits": {},
                "erased": True,
            }
            return bool(
                self._runs.update_one(
                    {"_id": run_id, "fence": stored["fence"]},
                    {"$set": fields, "$inc": {"fence": 1}},
                ).modified_count
            )

    # -- changed by people -----------------------------------------------------------

    def cancel(self, run_id: str) -> StoredRun:
        """Cancel a run: what is open is stopped, then what completed is undone.

        Raises:
            RunNotFound: no such run.
            TaskIsFinal: it has ended.
        """
        return self._changed(run_id, self._cancelled)

    def _cancelled(self, stored: StoredRun) -> Document:
        if stored.run.state.final:
            raise TaskIsFinal("The run has already ended", run_id=stored.id)
        return {"cancel": True, "state": _active(stored).value, "due_at": self._clock.now()}

    def pause(self, run_id: str) -> StoredRun:
        """Let a run take no further step; what it has begun goes on, and counts when it is
        resumed.

        Raises:
            RunNotFound: no such run.
            Conflict: it is not running.
        """

        def paused(stored: StoredRun) -> Document:
            if stored.run.state is not RunState.RUNNING:
                raise Conflict(f"The run is {stored.run.state.value}.", run_id=stored.id)
            return {"state": RunState.PAUSED.value, "due_at": None}

        return self._changed(run_id, paused)

    def resume(self, run_id: str) -> StoredRun:
        """Let a paused run go on.

        Raises:
            RunNotFound: no such run.
            Conflict: it is not paused.
        """

        def resumed(stored: StoredRun) -> Document:
            if stored.run.state is not RunState.PAUSED:
                raise Conflict(f"The run is {stored.run.state.value}.", run_id=stored.id)
            return {"state": RunState.RUNNING.value, "due_at": self._clock.now()}

        return self._changed(run_id, resumed)

    def retry(self, run_id: str) -> StoredRun:
        """Let a failed or cancelled run go on from the steps at which it stopped.

        Raises:
            RunNotFound: no such run.
            Conflict: it has not failed, or what completed has been undone.
        """

        def again(stored: StoredRun) -> Document:
            if stored.run.state not in (RunState.FAILED, RunState.CANCELLED):
                raise Conflict(f"The run is {stored.run.state.value}.", run_id=stored.id)
            run = retried(stored.run, self._definitions.get(stored.workflow, stored.version))
            return {
                "state": run.state.value,
                "visits": {visit.key: visit.to_document() for visit in run.visits},
                "cancel": False,
                "undo": False,
                "error": None,
                "due_at": self._clock.now(),
                # Looked at in the next pass.
                "kept_at": self._clock.now() - self._kept,
                "finished_at": None,
                "expire_at": None,
            }

        return self._changed(run_id, again)

    def _changed(self, run_id: str, change: Callable[[StoredRun], Document]) -> StoredRun:
        for _ in range(TRIES):
            stored = self.get(run_id)
            fields = change(stored)
            gone = {name: "" for name, value in fields.items() if value is None}
            update: Document = {
                "$set": {name: value for name, value in fields.items() if value is not None},
                "$inc": {"fence": 1},
            }
            if gone:
                update["$unset"] = gone
            with store_errors():
                written = self._runs.update_one(
                    {"_id": run_id, "fence": stored.fence}, update
                ).matched_count
            if written:
                log.info("run.changed", run_id=run_id, state=fields["state"])
                self.advance(run_id)
                return self.get(run_id)
        raise Conflict("The run is being changed by others; try again.", run_id=run_id)

    # -- callbacks -------------------------------------------------------------------

    def callback_path(self, stored: StoredRun, visit: Visit) -> str:
        """The path, with its token, by which the outside answers one visit of a callback."""
        name = self._definitions.get(stored.workflow, stored.version).step(visit.step).callback
        token = self._key.sign(f"{stored.id}\n{visit.key}")
        return f"/api/workflows/runs/{stored.id}/callbacks/{name}?token={visit.key}~{token}"

    def callbacks(self, stored: StoredRun) -> list[tuple[str, str]]:
        """The callbacks that a run waits for: (name, path with token)."""
        definition = self._definitions.get(stored.workflow, stored.version)
        return [
            (definition.step(visit.step).callback, self.callback_path(stored, visit))
            for visit in stored.run.visits
            if visit.state.open and isinstance(definition.step(visit.step), CallbackStep)
        ]

    def called_back(self, run_id: str, name: str, token: str, payload: Document) -> None:
        """Take what came for a callback; the first one counts.

        Raises:
            CallbackRefused: nobody waits for it, or the token is not the one for it.
            CallbackUsed: it has come already.
        """
        key, _, signature = token.rpartition("~")
        expected = self._key.sign(f"{run_id}\n{key}")
        if not key or not hmac.compare_digest(signature.encode(), expected.encode()):
            raise CallbackRefused()
        self._take_event(run_id, name, key, payload)

    def answered_by_operator(self, run_id: str, name: str, payload: Document) -> None:
        """Take what an operator says for a callback that is waited for.

        Raises:
            RunNotFound, CallbackRefused, CallbackUsed: as `called_back`.
        """
        stored = self.get(run_id)
        definition = self._definitions.get(stored.workflow, stored.version)
        for visit in stored.run.visits:
            step = definition.step(visit.step)
            if isinstance(step, CallbackStep) and step.callback == name and visit.state.open:
                self._take_event(run_id, name, visit.key, payload)
                return
        raise CallbackRefused()

    def is_taken(self, session_id: str) -> bool:
        """Whether a run waits for the next message of a session to answer it itself."""
        with store_errors():
            waiting = list(self._waits.find({"session_id": session_id}))
        # A wait may be left of a run that went on, where a process died before it took it away.
        return any(wait.get("takes") and self._waits_still(wait["_id"]) for wait in waiting)

    def _waits_still(self, wait_id: str) -> bool:
        run_id, _, visit_key = wait_id.partition(" ")
        with store_errors():
            if self._events.find_one({"_id": f"{run_id}.{visit_key}"}, {"_id": 1}) is not None:
                return False
            document = self._runs.find_one({"_id": run_id})
        if document is None:
            return False
        run, now = StoredRun.from_document(document).run, self._clock.now()
        return any(
            visit.key == visit_key
            and visit.state.open
            and not visit.stop
            and (visit.due_at is None or now < visit.due_at)
            for visit in run.visits
        )

    def message_received(
        self, session_id: str, key: str, said_at: dt.datetime, payload: Document
    ) -> int:
        """Tell the runs that have waited for a message of this session since before it was said;
        how many did. Said again under the same key, it is no answer to what they ask next.
        """
        with store_errors():
            waiting = list(self._waits.find({"session_id": session_id}))
        told = 0
        for wait in waiting:
            run_id, _, visit_key = wait["_id"].partition(" ")
            if wait.get("since", said_at) > said_at or self._has_heard(run_id, key):
                continue
            try:
                self._take_event(run_id, None, visit_key, payload | {"message_id": key})
                told += 1
            except (CallbackUsed, CallbackRefused):
                log.debug("run.message_not_waited_for", run_id=run_id)
            with store_errors():
                self._waits.delete_one({"_id": wait["_id"]})
        return told

    def _has_heard(self, run_id: str, message_id: str) -> bool:
        with store_errors():
            events = self._events.find({"run_id": run_id}, {"payload.message_id": 1})
            return any(each["payload"].get("message_id") == message_id for each in events)

    def _take_event(self, run_id: str, name: str | None, key: str, payload: Document) -> None:
        event_id = f"{run_id}.{key}"
        with store_errors():
            if self._events.find_one({"_id": event_id}) is not None:
                raise CallbackUsed()
        try:
            stored = self.get(run_id)
        except RunNotFound:
            raise CallbackRefused() from None
        visit = next((each for each in stored.run.visits if each.key == key), None)
        step = None
        if visit is not None and visit.state.open:
            step = self._definitions.get(stored.workflow, stored.version).step(visit.step)
        if not isinstance(step, CallbackStep) or (name is not None and step.callback != name):
            raise CallbackRefused()
        now = self._clock.now()
        try:
            with store_errors():
                self._events.insert_one(
                    {
                        "_id": event_id,
                        "run_id": run_id,
                        "payload": payload,
                        "at": now,
                        "unseen_at": now,
                    }
                )
        except DuplicateKeyError:
            raise CallbackUsed() from None
        log.info("run.called_back", run_id=run_id, step=step.id)
        self._heard(event_id, run_id)

    def _heard(self, event_id: str, run_id: str) -> None:
        """Advance a run for an event. One that is paused looks at it when it is resumed."""
        self.advance(run_id)
        with store_errors():
            self._events.update_one({"_id": event_id}, {"$unset": {"unseen_at": ""}})


def _active(stored: StoredRun) -> RunState:
    """What a run is when it is not paused any more."""
    return RunState.RUNNING if stored.run.state is RunState.PAUSED else stored.run.state


def _outcome(task: Task) -> Outcome | None:
    if not task.state.final:
        return None
    if task.state is State.COMPLETED:
        return Outcome(True, task.result)
    code = (task.error or {}).get("code", task.state.value)
    return Outcome(False, (task.error or {}).get("facts"), code)


def _outcome_of_run(document: Mapping[str, Any]) -> Outcome | None:
    state = RunState(document["state"])
    if not state.final:
        return None
    if state is RunState.COMPLETED:
        return Outcome(True, document.get("output"))
    return Outcome(False, None, (document.get("error") or {}).get("code", state.value))
