"""The task store: what was accepted, and every transition of it.

Keeps secret how a transition is made safe: one `update_one` that names the task's fence,
and a read of the token where the acknowledgement was lost. Every transition raises the
fence, so (id, fence) names one state of one task for ever, and is all that a
compare-and-set has to filter on.

Collection `tasks`, one document per task:

    _id            32 hex digits, unguessable, rising with time; a child's is
                   "{parent}.{phase}.{n}"
    type, payload  what is asked; `payload` is the only place of a customer's text
    agent, queue   who does it, and that agent's Celery queue
    priority       "critical" | "high" | "normal" | "low"
    caller         who asked ("operator", "client:web", "local", "task")
    idempotency    unique: hash of caller, route and key; the task's id where none came
    fingerprint    hash of the request, to tell a retry from another request
    twin           unique: hash of what a client without a key would send again, and a "+"
                   for each time that it was really said again
    session_id     the session that its payload names, or its parent's; null where none
    key, seq       ordering key, and the place in it (unique together)
    head           true for the one task of its key that may run (unique while true)
    state, fence   where it stands; the fence rises with each transition
    token          random per claim; how a lost acknowledgement is recognised
    worker         who holds it, for people; set only while running
    check_at       when the rescuer looks next: for a running task, when its lease ends; for a
                   queued one its deadline, or the end of its pause
    looks          looks since it was blocked or began to wait, publishes since it was queued:
                   for growing pauses
    lane           queue and place (`Task.place`), while its message should be in there; "paused"
                   while it waits for its next try
    run_after      a retry waits until then; gone once it is published
    deadline       past it the task is cancelled, or null
    cancel         true once somebody asked a running task to stop
    attempts, failures, crashes   claims; errors raised; workers lost
    queued_at, published_at, epoch   when it became ready; the last publish (of a paused one:
                   when its pause began), and its epoch
    decision       the router's choice and its reasons
    parent         {id, phase, n} of a child; depth how deep
    run            id of the workflow run that it is a step of; its id is then
                   "{run}.{step}:{visit}.{try}"
    handover       {phase, children: [request]} of a task that waits or has waited
    memory         what the handler asked to be given again after a hand-over
    result, error  one of them in a final state
    started_at, finished_at
    request_id     of the request that it came with, for the logs; a child has its parent's
    events         how many events its timeline ever had
    timeline       [{at, event, ...facts}], the newest 200
    dead           true for a dead letter: failed, nobody's child, not replayed or discarded
    redo           true from a replay until its failed children were replayed, too
    erased         true for a shell, left of a customer's task
    was            of a shell: {state, seq} before, so that what was counted stays counted
    expire_at      set with the final state only

Collection `tallies`: {_id: "tasks", completed, failed, cancelled}: how many tasks have ended
so, ever. Each process adds what it saw with its heartbeat (`tell_ended`), so a process that is
killed takes those of its last moments with it: a figure for people, nothing rests on it.

Every time is MongoDB's (`clock.py`). Written by this module only.
"""

import datetime as dt
import hashlib
import itertools
import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from bson.errors import BSONError
from pymongo import MongoClient, ReadPreference, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)
from pymongo.monitoring import CommandListener

from orchestrator.clock import JUMP_S, Clock
from orchestrator.errors import (
    IdempotencyKeyReused,
    InvalidPayload,
    KeyBusy,
    StaleAttempt,
    StoreUnavailable,
    TaskIsFinal,
    TaskNotFound,
)
from orchestrator.logs import log
from orchestrator.pages import Order, newest_first, oldest_first
from orchestrator.settings import Settings
from orchestrator.together import Together

Document = dict[str, Any]
T = TypeVar("T")

TALLY = {"_id": "tasks"}
_made = itertools.count()
_Move = tuple[Document, Document, str]  # query, update, token
# The error's code of a task of which nothing but a shell is left.
ERASED = "erased"
TIMELINE_LENGTH = 200
# Workers lost while running a task, from which on it runs with nothing else in its process.
SUSPECT_AFTER = 2
# A process that does not renew leases reads the database's clock this often.
CLOCK_TRUSTED_S = 60.0
# A reading that took longer says too little.
CLOCK_READ_S = 0.5
# What BSON cannot take: unknown types, half characters, numbers over 64 bits, over 16 MB.
UNFIT = (BSONError, UnicodeError, OverflowError, DocumentTooLarge)
# Below every time that is stored.
LONG_AGO = dt.datetime.fromtimestamp(0, dt.UTC)
TOGETHER = 32  # claims, or ends of attempts, in one round trip
# The lane of tasks whose message is not to be in any queue yet.
PAUSED = "paused"
KEPT_AT_ONCE = 500
# Browsers send a message that got no answer again; the same words after this are new words.
TWIN_WINDOW = dt.timedelta(seconds=10)


class State(StrEnum):
    """Where a task stands."""

    BLOCKED = "blocked"  # an earlier task of its ordering key is not final
    QUEUED = "queued"  # ready: published, or about to be
    RUNNING = "running"  # held by a worker, by a lease
    WAITING = "waiting"  # for the tasks it handed over
    COMPLETED = "completed"
    FAILED = "failed"  # retries spent, or the handler said it cannot be done: a dead letter
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Nothing follows."""
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class Priority(StrEnum):
    """How urgent; `step` is Redis' and Celery's number, where 0 goes first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def step(self) -> int:
        """The kombu priority step."""
        return PRIORITY_STEPS[self]


PRIORITY_STEPS = {Priority.CRITICAL: 0, Priority.HIGH: 3, Priority.NORMAL: 6, Priority.LOW: 9}
# Where what was handed over, and who resumes with it, waits: one step before what begins. Not
# among the critical ones: they were asked for as such.
_BEGUN = {Priority.LOW: Priority.NORMAL, Priority.NORMAL: Priority.HIGH}


@dataclass(frozen=True)
class Request:
    """What a caller asks for; what a hand-over's child is made of.

    With `agent`, only that one may do it. Of the agents that have `capabilities`, those that
    have all of `prefers` too come first, while one of them has a live worker.
    `route` is where a client's key came in: it is unique within the caller and the route, for
    as long as the settings say. A key without a route is unique within the caller and type, for
    as long as the task is kept. `alone` refuses where another task of the ordering key is not
    final. `twin` is equal for requests that are the same one sent again if they come within
    10 s and the first is not answered. `seq_after` is a number that the ordering key has reached.
    """

    type: str
    payload: Document
    capabilities: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()
    agent: str | None = None
    priority: Priority = Priority.NORMAL
    strategy: str | None = None
    caller: str = "task"
    idempotency_key: str | None = None
    route: str = ""
    ordering_key: str | None = None
    seq_after: int = 0
    alone: bool = False
    deadline_s: float | None = None
    twin: str | None = None
    request_id: str | None = None

    def fingerprint(self) -> str:
        """Equal for equal requests."""
        asked = [
            self.type,
            self.payload,
            sorted(self.capabilities),
            self.priority,
            self.strategy,
            self.deadline_s,
        ]
        return digest(json.dumps(asked, sort_keys=True, separators=(",", ":"), default=str))

    def to_document(self) -> Document:
        """The form in which a parent keeps its children."""
        return {
            "type": self.type,
            "payload": self.payload,
            "capabilities": list(self.capabilities),
            "prefers": list(self.prefers),
            "priority": self.priority.value,
            "strategy": self.strategy,
        }

    @classmethod
    def from_document(cls, document: Document) -> "Request":
        """The inverse of `to_document`."""
        return cls(
            type=document["type"],
            payload=document["payload"],
            capabilities=tuple(document["capabilities"]),
            # Parents that were stored by an older version have none.
            prefers=tuple(document.get("prefers", ())),
            priority=Priority(document["priority"]),
            strategy=document["strategy"],
        )


@dataclass(frozen=True)
class Task:
    """A task as it was read."""

    id: str
    type: str
    payload: Document
    agent: str
    queue: str
    priority: Priority
    caller: str
    state: State
    fence: int
    created_at: dt.datetime
    check_at: dt.datetime | None = None
    key: str | None = None
    seq: int | None = None
    token: str | None = None
    worker: str | None = None
    cancel: bool = False
    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    looks: int = 0
    queued_at: dt.datetime | None = None
    published_at: dt.datetime | None = None
    epoch: int = 0
    run_after: dt.datetime | None = None
    deadline: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    decision: Document | None = None
    session_id: str | None = None
    parent: Document | None = None
    run: str | None = None
    depth: int = 0
    handover: Document | None = None
    memory: Document | None = None
    result: Any = None
    error: Document | None = None
    fingerprint: str = ""
    request_id: str | None = None
    events: int = 0
    dead: bool = False
    redo: bool = False
    timeline: tuple[Document, ...] = field(default=())

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Task":
        """Read what the collection holds; fields that are not a task's business are left out."""
        known = {name: document[name] for name in _TASK_FIELDS if name in document}
        known["id"] = document["_id"]
        known["state"] = State(known["state"])
        known["priority"] = Priority(known["priority"])
        known["timeline"] = tuple(known.get("timeline", ()))
        return cls(**known)

    @property
    def suspect(self) -> bool:
        """It may be what kills its workers, and must not use up its neighbours' crashes."""
        return self.crashes >= SUSPECT_AFTER

    @property
    def place(self) -> Priority:
        """The priority that it waits by in its queue.

        A hand-over's children and the parent that goes on with their results stand before work
        that has not begun: somebody waits for what is half done.
        """
        return _place(self.priority, begun=self.parent is not None or self.handover is not None)

    def child_ids(self) -> list[str]:
        """The tasks of the last hand-over."""
        if self.handover is None:
            return []
        phase = self.handover["phase"]
        return [child_id(self.id, phase, n) for n in range(len(self.handover["children"]))]


_TASK_FIELDS = frozenset(Task.__dataclass_fields__) - {"id"}


@dataclass(frozen=True)
class Claim:
    """One attempt at a task: what its holder must show to change it."""

    task: Task
    token: str

    @property
    def fence(self) -> int:
        """The fence while it runs."""
        return self.task.fence


def digest(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def idempotency(request: Request, task_id: str) -> str:
    """What is unique: the caller's key within the caller and route, or the task itself."""
    if request.idempotency_key is None:
        return task_id
    scope = request.route or request.type
    return digest(json.dumps([request.caller, scope, request.idempotency_key]))


def new_id(now: dt.datetime) -> str:
    """Time in milliseconds, a number that rises within the process, then 64 random bits: what
    one process makes rises, and none can be guessed."""
    return f"{id_at(now)}{next(_made) & 0xFFFF:04x}{secrets.token_hex(8)}"


def new_token() -> str:
    """For one claim."""
    return secrets.token_hex(8)


def child_id(parent: str, phase: int, n: int) -> str:
    """The id of a parent's n-th child of a phase: the same however often it is made."""
    return f"{parent}.{phase}.{n}"


def id_at(time_utc: dt.datetime) -> str:
    """Below every id that `new_id` gives from this time on."""
    return f"{int(time_utc.timestamp() * 1000):012x}"


def time_of_id(task_id: str) -> dt.datetime:
    """When what has this id was accepted."""
    return dt.datetime.fromtimestamp(int(task_id[:12], 16) / 1000, dt.UTC)


def _checked_id(position: str) -> str:
    time_of_id(position)
    if len(position) > 500 or not position.isascii():
        raise ValueError("no id")
    return position


# What has an id made by `new_id`, or one that begins with such an id.
BY_ID = Order("_id", id_at, time_of_id, str, _checked_id)


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a list shows; what is None does not matter. `code` is their error's, `dead`
    means dead letters only."""

    state: State | None = None
    agent: str | None = None
    type: str | None = None
    session_id: str | None = None
    code: str | None = None
    since: dt.datetime | None = None
    dead: bool | None = None

    def split(self) -> tuple[Document, Document]:
        """What an index finds, and what is left to be compared.

        One index each, and not one for every combination: each would cost every acceptance a
        write. The rarest goes first; most tasks that are kept are completed.
        """
        state = None if self.state is None else self.state.value
        asked: Document = {"dead": self.dead, "session_id": self.session_id}
        if self.state is not State.COMPLETED:
            asked["state"] = state
        asked |= {"type": self.type, "agent": self.agent, "state": state}
        given = [(name, value) for name, value in asked.items() if value is not None]
        left = dict(given[1:]) | ({"error.code": self.code} if self.code is not None else {})
        return dict(given[:1]), left


def _recorded(event: Document, counts: Document | None = None) -> Document:
    """The part of an update that adds an event to the timeline, and counts it."""
    return {
        "$push": {"timeline": {"$each": [event], "$slice": -TIMELINE_LENGTH}},
        "$inc": {"events": 1} | (counts or {}),
    }


def lane_of(queue: str, place: Priority) -> str:
    """Where a queued task's message is."""
    return f"{queue}/{place.value}"


def _place(priority: Priority, *, begun: bool) -> Priority:
    return _BEGUN.get(priority, priority) if begun else priority


def earlier_than(time: dt.datetime) -> Document:
    """The query for times before this one, by an index.

    With a lower bound: SecantusDB 0.6 would read every document that has no such time.
    """
    return {"$gt": LONG_AGO, "$lt": time}


def _until(*times: dt.datetime | None) -> Document:
    """When the rescuer must look at a queued task, whatever becomes of its message: at the first
    of these times, if there is any."""
    given = [time for time in times if time is not None]
    return {"check_at": min(given)} if given else {}


def open_database(settings: Settings, *listeners: CommandListener) -> Database[Document]:
    """The database, with the write concern that acceptance rests on.

    The pool is small because the embedded server keeps a thread per connection.
    """
    client: MongoClient[Document] = MongoClient(
        settings.mongodb_uri,
        tz_aware=True,
        maxPoolSize=32,
        serverSelectionTimeoutMS=int(settings.store_timeout_s * 1000),
        connectTimeoutMS=int(settings.store_timeout_s * 1000),
        socketTimeoutMS=int(settings.store_timeout_s * 4000),
        waitQueueTimeoutMS=int(settings.store_timeout_s * 1000),
        appname="agent-orchestrator",
        event_listeners=listeners,
    )
    return client.get_database(
        settings.mongodb_database,
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn a MongoDB that is out of reach into StoreUnavailable; the outcome is unknown."""
    try:
        yield
    except (DuplicateKeyError, OperationFailure) as error:
        if error.timeout or error.has_error_label("RetryableWriteError"):
            raise StoreUnavailable() from error
        raise
    except PyMongoError as error:
        if isinstance(error, ConnectionFailure) or error.timeout:
            raise StoreUnavailable() from error
        raise


def ensure_index(
    collection: Collection[Document],
    name: str,
    fields: str,
    *,
    where: Document | None = None,
    **options: Any,
) -> None:
    """An ascending index over fields (separated by spaces), made anew where its definition
    has changed since it was made. Processes may do it at the same time. A name has one
    definition in a collection: two would undo each other at each start."""
    keys = [(field, 1) for field in fields.split()]
    if where is not None:
        options["partialFilterExpression"] = where
    with store_errors():
        try:
            collection.create_index(keys, name=name, **options)
        except OperationFailure:
            # Servers differ in the code that they say this with.
            with suppress(OperationFailure):  # another process was faster
                collection.drop_index(name)
            collection.create_index(keys, name=name, **options)


class TaskStore:
    """Accept, claim, renew, finish, fail, wait, resume, cancel, and what the rescuer needs.

    Every method raises StoreUnavailable when MongoDB does not answer in time; except where
    a method says otherwise the outcome is then unknown and the call may be made again.
    """

    def __init__(self, database: Database[Document], clock: Clock, settings: Settings) -> None:
        self._database = database
        self._tasks = database["tasks"]
        self._tallies = database["tallies"]
        self._clock = clock
        self._settings = settings
        self._lock = threading.Lock()
        self._ended: Counter[State] = Counter()  # not told yet
        # A worker's slots claim and finish at the same time: one round trip for all of them.
        self._moves = Together(self._move_all, TOGETHER)
        self._reads = Together(self._read_all, TOGETHER)

    # -- setting up ------------------------------------------------------------------

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on; harmless when they exist."""
        # `check_at` is there for the take-back, which also names the lease that it read.
        ensure_index(self._tasks, "transition", "_id fence check_at")
        ensure_index(self._tasks, "rescue", "state check_at")
        ensure_index(self._tasks, "idempotency", "idempotency", unique=True)
        # Not `$exists`: the embedded server then scans for an equality that implies it.
        ensure_index(self._tasks, "order", "key seq", unique=True, where={"key": {"$gt": ""}})
        ensure_index(self._tasks, "blocked", "key state seq", where={"key": {"$gt": ""}})
        ensure_index(self._tasks, "head", "key", unique=True, where={"head": True})
        ensure_index(self._tasks, "twin", "twin", unique=True, where={"twin": {"$gt": ""}})
        # Holds what is queued only: an entry comes with a publish and goes with the claim.
        ensure_index(self._tasks, "lanes", "lane published_at", where={"lane": {"$gt": ""}})
        # Lists, a page at a time; that of all tasks goes by the id alone.
        for first in ("state", "type", "agent", "session_id", "dead"):
            ensure_index(self._tasks, f"list_{first}", f"{first} _id")
        ensure_index(self._tasks, "expiry", "expire_at", expireAfterSeconds=0)
        self._adopt_retries()
        with store_errors(), suppress(DuplicateKeyError):
            if self._tallies.find_one(TALLY) is None:
                ended = {s.value: self._tasks.count_documents({"state": s.value}) for s in FINAL}
                self._tallies.insert_one(TALLY | ended)

    def _adopt_retries(self) -> None:
        """Earlier releases found retries by an index of their own."""
        with store_errors():
            if "retries" not in self._tasks.index_information():
                return
            self._tasks.update_many(
                {"run_after": {"$gt": LONG_AGO}},
                {"$set": {"lane": PAUSED}, "$min": {"check_at": self._clock.now()}},
            )
            with suppress(OperationFailure):  # another process was quicker
                self._tasks.drop_index("retries")

    def read_clock(self) -> None:
        """Take a reading of the database's clock."""
        asked_at = self._clock.monotonic()
        with store_errors():
            told: dt.datetime = self._database.client.admin.command("hello")["localTime"]
        took_s = self._clock.monotonic() - asked_at
        if took_s < CLOCK_READ_S:
            told = told if told.tzinfo else told.replace(tzinfo=dt.UTC)
            self._clock.observe(told + dt.timedelta(seconds=took_s / 2))

    # -- acceptance ------------------------------------------------------------------

    def accept(
        self,
        request: Request,
        *,
        agent: str,
        queue: str,
        decision: Document,
        epoch: int,
        parent: tuple[Task, int, int] | None = None,
        step: tuple[str, str] | None = None,
        refused: Document | None = None,
    ) -> tuple[Task, bool]:
        """Store a task durably; True where this call created it, False for a repetition.

        `parent` is (task, phase, n) of a child, whose id follows from it; `step` is (task id,
        run id) of a workflow run's step. With `refused`, an error, the task is stored as one
        that has failed; a step as one that was cancelled.

        Raises:
            InvalidPayload: it holds what cannot be stored, such as half a character.
            IdempotencyKeyReused: the key came before with another request.
            StoreUnavailable: unknown whether it was stored; ask again with the same key.
        """
        if self._clock.monotonic() - self._clock.read_at > CLOCK_TRUSTED_S:
            self.read_clock()
        now = self._clock.now()
        if parent is not None:
            task_id = child_id(parent[0].id, parent[1], parent[2])
        else:
            task_id = new_id(now) if step is None else step[0]
        document: Document = {
            "_id": task_id,
            "type": request.type,
            "payload": request.payload,
            "agent": agent,
            "queue": queue,
            "priority": request.priority.value,
            "caller": request.caller,
            "idempotency": idempotency(request, task_id),
            "fingerprint": request.fingerprint(),
            "state": State.QUEUED.value,
            "fence": 0,
            "created_at": now,
            "queued_at": now,
            "published_at": now,
            "epoch": epoch,
            "decision": decision,
            "request_id": parent[0].request_id if parent else request.request_id,
            "events": 1,
            "timeline": [{"at": now, "event": "accepted", "agent": agent}],
        }
        session_id = request.payload.get("session_id") or (parent[0].session_id if parent else None)
        if isinstance(session_id, str):
            document["session_id"] = session_id
        if request.deadline_s is not None:
            document["deadline"] = now + dt.timedelta(seconds=request.deadline_s)
        if parent is not None:
            document |= {
                "parent": {"id": parent[0].id, "phase": parent[1], "n": parent[2]},
                "depth": parent[0].depth + 1,
                "caller": parent[0].caller,
            }
            if parent[0].deadline is not None:
                document["deadline"] = parent[0].deadline
        if step is not None:
            document["run"] = step[1]
        if request.twin is not None:
            document["twin"] = request.twin
        if refused is not None:
            # A run counts its failed steps itself: they are nobody's dead letters.
            state = State.FAILED if step is None else State.CANCELLED
            document |= self._final(state, error=refused)
        elif request.ordering_key is not None:
            document["check_at"] = self._first_look(now)
        else:
            place = _place(request.priority, begun=parent is not None)
            document["lane"] = lane_of(queue, place)
            if "deadline" in document:
                document["check_at"] = document["deadline"]
        try:
            with store_errors():
                return self._insert(document, request)
        except UNFIT as error:
            raise InvalidPayload(
                task_type=request.type, errors=[{"pointer": "", "detail": "cannot be stored"}]
            ) from error

    def _insert(self, document: Document, request: Request) -> tuple[Task, bool]:
        known_seq = request.seq_after
        if request.ordering_key is not None and (request.alone or not known_seq):
            # A guess of 1 would succeed, and overtake, where older tasks have expired.
            try:
                known_seq = max(known_seq, self._last_seq(request))
            except KeyBusy:
                # Unless it is the very message that is under way.
                known = self._repetition_of(document, request)
                if known is None:
                    raise
                return known, False
        while True:
            if request.ordering_key is not None:
                document |= {
                    "key": request.ordering_key,
                    "seq": known_seq + 1,
                    "state": State.BLOCKED.value,
                }
            try:
                self._tasks.insert_one(document)
            except DuplicateKeyError:
                named = document["idempotency"], document.get("twin")
                known = self._repetition_of(document, request)
                if known is not None:
                    return known, False
                if request.ordering_key is not None:
                    # Another task took the place between our look and our insert.
                    known_seq = self._last_seq(request)
                elif named == (document["idempotency"], document.get("twin")):
                    raise
                continue
            self._note_ended(document["state"])
            return Task.from_document(document), True

    def _last_seq(self, request: Request) -> int:
        """The highest number given in the request's ordering key.

        Who is `alone` inserts right behind it, so that of two at once one gets the place, and
        the other looks here again.
        """
        assert request.ordering_key is not None
        last = self.last_of_key(request.ordering_key)
        if request.alone and last is not None and not last.state.final:
            raise KeyBusy()
        return 0 if last is None or last.seq is None else last.seq

    def _is_remembered(self, stored: Document, request: Request) -> bool:
        window = dt.timedelta(hours=self._settings.idempotency_hours)
        return not request.route or self._clock.now() - stored["created_at"] < window

    def _repetition_of(self, document: Document, request: Request) -> Task | None:
        """The accepted task that this document repeats, after a duplicate key."""
        stored = self._tasks.find_one({"idempotency": document["idempotency"]})
        if stored is not None:
            if not self._is_remembered(stored, request):
                document["idempotency"] += "+"  # as with the twin, below
                return None
            if stored["fingerprint"] != document["fingerprint"]:
                raise IdempotencyKeyReused()
            return Task.from_document(stored)
        if "twin" not in document:
            return None
        stored = self._tasks.find_one({"twin": document["twin"]})
        if stored is None:
            return None
        fresh = self._clock.now() - stored["created_at"] < TWIN_WINDOW
        if fresh and not State(stored["state"]).final:
            return Task.from_document(stored)
        # Said again later, or after an answer: a message of its own, under the next name. The
        # old one keeps its name: SecantusDB 0.6 lets no insert have a unique value that
        # another document was inserted with, even after that one gave it up.
        document["twin"] += "+"
        return None

    def by_idempotency_key(self, request: Request) -> Task | None:
        """The task that this request's key was accepted with, if any.

        Raises:
            IdempotencyKeyReused: it was accepted with another request.
        """
        if request.idempotency_key is None:
            return None
        key = idempotency(request, "")
        with store_errors():
            while True:
                stored = self._tasks.find_one({"idempotency": key})
                if stored is None:
                    return None
                if self._is_remembered(stored, request):
                    break
                key += "+"
        if stored["fingerprint"] != request.fingerprint():
            raise IdempotencyKeyReused()
        return Task.from_document(stored)

    def last_of_key(self, key: str) -> Task | None:
        """The task of an ordering key with the highest number, without its results."""
        with store_errors():
            found = self._tasks.find({"key": key}, {"timeline": 0, "result": 0})
            last = [Task.from_document(d) for d in found.sort("seq", -1).limit(1)]
        return last[0] if last else None

    def blocked_places(self, key: str, at_most: int) -> list[int]:
        """The numbers of a key's blocked tasks, at most so many."""
        with store_errors():
            found = self._tasks.find(self._blocked(key), {"seq": 1}).limit(at_most)
            return [document["seq"] for document in found]

    def reached(self, key: str, known: int) -> int:
        """The highest number that an ordering key has given, where one is known."""
        with store_errors():
            higher = self._tasks.find_one({"key": key, "seq": {"$gt": known}}, {"_id": 1})
        newest = None if higher is None else self.last_of_key(key)
        return known if newest is None else max(known, newest.seq or 0)

    def count_unfinished(self, at_most: int) -> int:
        """How many tasks have not ended, each state counted up to `at_most`."""
        with store_errors():
            return sum(
                self._tasks.count_documents({"state": state.value}, limit=at_most)
                for state in State
                if not state.final
            )

    # -- reading ---------------------------------------------------------------------

    def get(self, task_id: str) -> Task:
        """Read a task.

        Raises:
            TaskNotFound: no such task.
        """
        with store_errors():
            document = self._tasks.find_one({"_id": task_id})
        if document is None:
            raise TaskNotFound()
        return Task.from_document(document)

    def many(self, task_ids: list[str]) -> dict[str, Task]:
        """Read several tasks; those that do not exist are left out."""
        with store_errors():
            found = self._tasks.find({"_id": {"$in": task_ids}})
            return {document["_id"]: Task.from_document(document) for document in found}

    def of_key(self, key: str, after_seq: int, limit: int = 0) -> list[Task]:
        """Tasks of an ordering key behind a number, in order, without their results; 0: all."""
        with store_errors():
            found = self._tasks.find(
                {"key": key, "seq": {"$gt": after_seq}},
                {"timeline": 0, "result": 0, "decision": 0, "handover": 0, "memory": 0},
            )
            return [Task.from_document(d) for d in found.sort("seq", 1).limit(limit)]

    def final_among(self, task_ids: list[str]) -> list[str]:
        """Which of these have ended."""
        with store_errors():
            found = list(self._tasks.find({"_id": {"$in": task_ids}}, {"state": 1}))
        return [document["_id"] for document in found if State(document["state"]).final]

    def page(
        self, wanted: TaskFilter, limit: int, position: str | None = None
    ) -> tuple[list[Task], str | None]:
        """Tasks, newest first, without payloads, results and timelines; and where the next
        page begins, None at the end.

        Raises:
            ValueError: the position is none that was given here.
        """
        equal, left = wanted.split()

        def fits(document: Document) -> bool:
            # Of the fields that are left one has a path.
            error = document.get("error") or {}
            told = document | {"error.code": error.get("code")}
            return all(told.get(name) == value for name, value in left.items())

        with store_errors():
            page = newest_first(
                self._tasks,
                equal,
                BY_ID,
                now=self._clock.now(),
                limit=limit,
                position=position,
                since=wanted.since,
                wanted=fits if left else None,
                fields={"payload": 0, "result": 0, "timeline": 0},
            )
        return [Task.from_document({"payload": {}} | found) for found in page.documents], page.next

    def dead_letters(self, at_most: int) -> int:
        """How many dead letters there are, counted up to `at_most`."""
        with store_errors():
            return self._tasks.count_documents({"dead": True}, limit=at_most)

    def counts(self) -> dict[State, int]:
        """How many tasks are in each unfinished state, and how many have ended in each final one.

        The cost is that of the backlog: finished tasks are not counted, but tallied.
        """
        self.tell_ended()
        with store_errors():
            told = self._tallies.find_one(TALLY) or {}
            return {
                state: told.get(state.value, 0)
                if state.final
                else self._tasks.count_documents({"state": state.value})
                for state in State
            }

    def tell_ended(self) -> None:
        """Add what ended by this store's hand to the tally."""
        with self._lock:
            ended, self._ended = self._ended, Counter()
        if not ended:
            return
        more = {state.value: n for state, n in ended.items()}
        try:
            with store_errors():
                self._tallies.update_one(TALLY, {"$inc": more})
        except StoreUnavailable:
            with self._lock:
                self._ended += ended
            raise

    def _note_ended(self, state: str) -> None:
        if State(state).final:
            with self._lock:
                self._ended[State(state)] += 1

    # -- a customer's tasks ----------------------------------------------------------

    def ids_of_session(
        self, session_id: str, before: dt.datetime, at_most: int | None
    ) -> list[str]:
        """Tasks of a session that were accepted before a time, or handed over by such."""
        query = {"session_id": session_id, "_id": {"$lt": id_at(before)}}
        return self._ids(query, at_most)

    def ids_of_key(self, key: str, before: dt.datetime, at_most: int | None) -> list[str]:
        """Tasks of an ordering key that were accepted before a time."""
        return [each for each in self._ids({"key": key}, at_most) if each < id_at(before)]

    def descendants(self, task_id: str) -> list[str]:
        """What a task handed over, and what that handed over."""
        return self._ids({"_id": {"$gt": f"{task_id}.", "$lt": f"{task_id}/"}}, None)

    def _ids(self, query: Document, at_most: int | None) -> list[str]:
        with store_errors():
            found = self._tasks.find(query, {"_id": 1}).limit(at_most or 0)
            return [document["_id"] for document in found]

    def without_session(self, start: dt.datetime, end: dt.datetime) -> Iterator[Document]:
        """The documents of tasks that belong to no session, nor to another task, accepted in a
        stretch of time."""
        with store_errors():
            for document in oldest_first(
                self._tasks, {"session_id": None}, BY_ID, start=start, end=end
            ):
                if "parent" not in document:
                    yield document

    def raw(self, task_ids: list[str]) -> list[Document]:
        """Whole documents, for their owners."""
        with store_errors():
            return list(self._tasks.find({"_id": {"$in": task_ids}}))

    def erase(self, task_id: str) -> bool:
        """Leave of a task that has ended what says nothing of anybody; False where nothing was
        left to erase.

        Its idempotency key stays: a client that sends it again must not bring it back.
        """
        with store_errors():
            stored = self._tasks.find_one({"_id": task_id})
            if stored is None or stored.get("erased"):
                return False
            now = self._clock.now()
            kept = [{"at": each["at"], "event": each["event"]} for each in stored["timeline"]]
            fields = {
                "state": State.CANCELLED.value,
                "payload": {},
                "error": {"code": ERASED, "detail": "Erased at the customer's request."},
                "decision": None,
                "erased": True,
                "was": {"state": stored["state"], "seq": stored.get("seq")},
                "timeline": [*kept[1 - TIMELINE_LENGTH :], {"at": now, "event": ERASED}],
                "expire_at": now + dt.timedelta(days=self._settings.task_retention_days),
            }
            gone = (
                "result memory handover key seq head session_id twin token worker dead redo "
                "check_at run_after request_id"
            )
            return bool(
                self._tasks.update_one(
                    {"_id": task_id, "fence": stored["fence"]},
                    {
                        "$set": fields,
                        "$inc": {"fence": 1},
                        "$unset": dict.fromkeys(gone.split(), ""),
                    },
                ).modified_count
            )

    # -- a worker's side -------------------------------------------------------------

    def claim(
        self, task_id: str, fence: int, worker: str, token: str | None = None
    ) -> Claim | None:
        """Take a queued task; None when it has moved on. Its deadline is for the caller to look at.

        Who asks again after StoreUnavailable gives the same token: the task may be theirs.
        """
        now = self._clock.now()
        token = token or new_token()
        with store_errors():
            taken = self._transition(
                task_id,
                fence,
                {
                    "state": State.RUNNING.value,
                    "token": token,
                    "worker": worker,
                    "started_at": now,
                    "check_at": self._lease_end(now),
                },
                event={"at": now, "event": "claimed", "worker": worker},
                count={"attempts": 1},
                token=token,
            )
            if not taken:
                return None
            document = self._reads(task_id)
        if document is None or document["fence"] != fence + 1:
            return None
        return Claim(Task.from_document(document), token)

    def renew(self, held: Iterable[tuple[str, int]]) -> int:
        """Extend the leases of what is held, (task id, fence) each, in one round trip; returns
        how many are.

        By fence, and not by the worker's name: what the worker gave up must run out.
        """
        lease = {"$set": {"check_at": self._lease_end(self._clock.now())}}
        renewals = [UpdateOne({"_id": id, "fence": fence}, lease) for id, fence in held]
        if not renewals:
            return 0
        with store_errors():
            return self._tasks.bulk_write(renewals, ordered=False).matched_count

    def finish(self, claim: Claim, result: Any) -> Task:
        """Complete the claimed attempt, once.

        Raises:
            StaleAttempt: the task has moved on; drop the result.
        """
        return self._end_attempt(claim, self._final(State.COMPLETED, result=result), "completed")

    def fail(self, claim: Claim, error: Document) -> Task:
        """End the claimed attempt as a dead letter.

        Raises:
            StaleAttempt: the task has moved on.
        """
        fields = self._final(State.FAILED, error=error)
        return self._end_attempt(claim, fields, "failed", facts=error, count={"failures": 1})

    def retry(self, claim: Claim, error: Document, pause_s: float, *, failed: bool = True) -> Task:
        """Give the claimed task back, to run again after a pause; `failed` counts against it.

        Raises:
            StaleAttempt: the task has moved on.
        """
        now = self._clock.now()
        due = now + dt.timedelta(seconds=pause_s)
        fields = {
            "state": State.QUEUED.value,
            "queued_at": now,
            "published_at": now,
            "run_after": due,
            "lane": PAUSED,
            "looks": 0,
            # Nothing is published before the pause is over: an epoch that is always older.
            "epoch": -1,
        } | _until(claim.task.deadline, due)
        return self._end_attempt(
            claim,
            fields,
            "retried" if failed else "handed_back",
            facts=error | {"pause_s": round(pause_s, 3)},
            count={"failures": 1} if failed else None,
        )

    def cancelled(self, claim: Claim, error: Document) -> Task:
        """End the claimed attempt of a task that was asked to stop.

        Raises:
            StaleAttempt: the task has moved on.
        """
        return self._end_attempt(
            claim, self._final(State.CANCELLED, error=error), "cancelled", facts=error
        )

    def wait(self, claim: Claim, children: list[Request], memory: Document) -> Task:
        """Hand over: write the children into the task, which then waits for them.

        The children are inserted from there by the coordinator, or by the rescuer.

        Raises:
            StaleAttempt: the task has moved on.
        """
        phase = (claim.task.handover or {"phase": 0})["phase"] + 1
        fields = {
            "state": State.WAITING.value,
            "handover": {"phase": phase, "children": [child.to_document() for child in children]},
            "memory": memory,
            "check_at": self._first_look(self._clock.now()),
            "looks": 0,
        }
        return self._end_attempt(claim, fields, "waiting", facts={"children": len(children)})

    def _end_attempt(
        self,
        claim: Claim,
        fields: Document,
        event: str,
        *,
        facts: Document | None = None,
        count: Document | None = None,
    ) -> Task:
        moved = {"at": self._clock.now(), "event": event} | (facts or {})
        fields = self._dead_letter(claim.task, fields)
        with store_errors():
            done = self._transition(
                claim.task.id, claim.fence, fields, event=moved, count=count, token=claim.token
            )
        if not done:
            raise StaleAttempt(task_id=claim.task.id, fence=claim.fence)
        return self._after(claim.task, fields, moved, count)

    # -- anybody's side --------------------------------------------------------------

    def promote(self, key: str, epoch: int) -> Task | None:
        """Make the lowest blocked task of a key its head; None when there is one, or none waits."""
        with store_errors():
            lowest = list(self._tasks.find(self._blocked(key)).sort("seq", 1).limit(1))
            if not lowest:
                return None
            task = Task.from_document(lowest[0])
            now = self._clock.now()
            fields = self._ready(task, now, epoch) | {"head": True}
            event = {"at": now, "event": "promoted"}
            try:
                if not self._transition(task.id, task.fence, fields, event=event):
                    return None
            except DuplicateKeyError:
                return None
        return self._after(task, fields, event, None)

    def resume(self, task: Task, epoch: int) -> Task | None:
        """Put a waiting task, as it was read, back into its queue; None when it has moved on."""
        now = self._clock.now()
        return self._move(task, self._ready(task, now, epoch), {"at": now, "event": "resumed"})

    def take_back(self, task: Task, epoch: int) -> Task | None:
        """Take a running task from a worker whose lease ended; None when it moved or was renewed.

        Counts a crash; past the limit the task is a dead letter.
        """
        now = self._clock.now()
        count = {"crashes": 1}
        if task.crashes + 1 > self._settings.max_crashes:
            error = {"code": "worker_lost", "detail": "Its workers died while running it."}
            fields = self._final(State.FAILED, error=error)
            event = {"at": now, "event": "failed", "worker": task.worker} | error
        else:
            fields = self._ready(task, now, epoch)
            event = {"at": now, "event": "taken_back", "worker": task.worker}
        # The lease that was read: a worker that renewed it meanwhile keeps the task.
        return self._move(task, fields, event, count=count, lease=task.check_at)

    def replay(
        self, task: Task, epoch: int, *, by: str, anew: Document | None = None
    ) -> Task | None:
        """Let a task that failed, as it was read, run once more; None when it has moved on.

        It is the same task: what it has committed is found again by its id, and its timeline
        goes on. Its counts start anew, and its deadline gives it as long as at first. One with
        an ordering key takes the last place of it: those that came after it may have run.
        `anew` are fields of a new route.
        """
        now = self._clock.now()
        fields: Document = {"failures": 0, "crashes": 0, "cancel": False} | (anew or {})
        if task.handover is not None:
            fields["redo"] = True
        if task.deadline is not None:
            fields.setdefault("deadline", now + (task.deadline - task.created_at))
        event = {"at": now, "event": "replayed", "by": by}
        gone = ("result", "error", "started_at", "finished_at", "expire_at", "dead", "token")
        while True:
            if task.key is None:
                fields |= self._ready(replace(task, **fields), now, epoch)
            else:
                newest = self.last_of_key(task.key)
                last = newest.seq or 0 if newest else 0
                fields |= {
                    "state": State.BLOCKED.value,
                    "seq": task.seq if last == task.seq else last + 1,
                    "check_at": self._first_look(now),
                    "looks": 0,
                }
            try:
                with store_errors():
                    if not self._transition(task.id, task.fence, fields, event=event, gone=gone):
                        return None
            except DuplicateKeyError:
                continue  # another task took the place: look again
            began = replace(task, result=None, error=None, dead=False, token=None)
            began = replace(began, started_at=None, finished_at=None)
            return self._after(began, fields, event, None)

    def keep(self, task_ids: list[str], until: dt.datetime) -> None:
        """Let what is final of these tasks stay until a time at least."""
        with store_errors():
            for start in range(0, len(task_ids), KEPT_AT_ONCE):
                ids = {"$in": task_ids[start : start + KEPT_AT_ONCE]}
                self._tasks.update_many(
                    {"_id": ids, "expire_at": {"$lt": until}}, {"$set": {"expire_at": until}}
                )

    def discard(self, task: Task, *, by: str) -> Task | None:
        """Take a dead letter, as it was read, out of the list; None when it has moved on.

        It stays a failed task for as long as such are kept.
        """
        event = {"at": self._clock.now(), "event": "discarded", "by": by}
        update = _recorded(event, {"fence": 1}) | {"$unset": {"dead": ""}}
        with store_errors():
            found = self._tasks.update_one({"_id": task.id, "fence": task.fence}, update)
        if not found.matched_count:
            return None
        return self._after(replace(task, dead=False, fence=task.fence + 1), {}, event, None)

    def wait_again(self, claim: Claim) -> Task:
        """Let the claimed task wait for its last hand-over once more: parts of it run again.

        Raises:
            StaleAttempt: the task has moved on.
        """
        fields = {
            "state": State.WAITING.value,
            "redo": False,
            "check_at": self._first_look(self._clock.now()),
            "looks": 0,
        }
        return self._end_attempt(claim, fields, "waiting")

    def cancel(self, task: Task, error: Document) -> Task:
        """Cancel a task, as it was read, that no worker holds; mark one that a worker holds.

        A marked task ends when its handler returns or its lease ends. Returns the task as it
        now is.

        Raises:
            TaskIsFinal: it has ended.
        """
        while True:
            if task.state.final:
                raise TaskIsFinal(task_id=task.id, state=task.state.value)
            now = self._clock.now()
            if task.state is State.RUNNING:
                marked = self.ask_to_stop(task)
                if marked is not None:
                    return marked
            else:
                fields = self._final(State.CANCELLED, error=error)
                ended = self._move(task, fields, {"at": now, "event": "cancelled"} | error)
                if ended is not None:
                    return ended
            task = self.get(task.id)

    def ask_to_stop(self, task: Task) -> Task | None:
        """Mark a task, as it was read, as one to be cancelled; None when it has moved on."""
        event = {"at": self._clock.now(), "event": "cancel_requested"}
        with store_errors():
            marked = self._tasks.update_one(
                {"_id": task.id, "fence": task.fence},
                {"$set": {"cancel": True}} | _recorded(event),
            ).matched_count
        return self._after(task, {"cancel": True}, event, None) if marked else None

    # -- the rescuer's side ----------------------------------------------------------

    def due(self, state: State, limit: int) -> list[Task]:
        """Tasks of a state whose `check_at` has passed."""
        return self._found(
            {"state": state.value, "check_at": earlier_than(self._clock.now())}, limit
        )

    def existing(self, task_ids: list[str]) -> set[str]:
        """Which of these were ever inserted."""
        with store_errors():
            return {d["_id"] for d in self._tasks.find({"_id": {"$in": task_ids}}, {"_id": 1})}

    def _found(self, query: Document, limit: int) -> list[Task]:
        with store_errors():
            documents = list(self._tasks.find(query, {"timeline": 0, "result": 0}).limit(limit))
        tasks = []
        for document in documents:
            try:
                tasks.append(Task.from_document(document))
            except (KeyError, TypeError, ValueError) as error:
                # One that was tampered with must not keep the rescuer from the others.
                name = type(error).__name__
                log.error("task.unreadable", task_id=str(document["_id"]), error=name)
        return tasks

    @staticmethod
    def _blocked(key: str) -> Document:
        # The range is for SecantusDB 0.6, which uses no partial index for equalities alone.
        return {"key": key, "state": State.BLOCKED.value, "seq": {"$gt": 0}}

    def published_before(
        self, queue: str, place: Priority, time: dt.datetime, limit: int
    ) -> list[Task]:
        """Tasks that are still queued though they were last published before a time."""
        return self._found(
            {"lane": lane_of(queue, place), "published_at": earlier_than(time)}, limit
        )

    def published_after(
        self, queue: str, place: Priority, time: dt.datetime, limit: int
    ) -> list[Task]:
        """Queued tasks that were last published after a time."""
        return self._found({"lane": lane_of(queue, place), "published_at": {"$gt": time}}, limit)

    def published_again(self, tasks: list[Task], now: dt.datetime, epoch: int) -> None:
        """Record in one write that queued tasks were published anew.

        Names no fence: of what was claimed meanwhile nobody looks at these fields any more.
        """
        with store_errors():
            self._tasks.update_many(
                {"_id": {"$in": [task.id for task in tasks]}},
                {"$set": {"published_at": now, "epoch": epoch}, "$inc": {"looks": 1}},
            )

    def retries_published(self, tasks: list[Task], now: dt.datetime, epoch: int) -> None:
        """Record in one round trip that tasks whose pause is over were published."""
        published = []
        for task in tasks:
            fields = {
                "published_at": now,
                "epoch": epoch,
                "lane": lane_of(task.queue, task.place),
            } | _until(task.deadline)
            gone = {"run_after": ""} | ({} if "check_at" in fields else {"check_at": ""})
            update = {"$set": fields, "$inc": {"looks": 1}, "$unset": gone}
            published.append(UpdateOne({"_id": task.id, "fence": task.fence}, update))
        with store_errors():
            self._tasks.bulk_write(published, ordered=False)

    def recall_the_future(self, limit: int) -> int:
        """Bring back what is due later than it can be: it was written before the database's
        clock went back. Returns how many.

        Leases end one lease from now: a worker that is alive renews them.
        """
        now = self._clock.now()
        lease_end = self._lease_end(now)
        beyond = max(lease_end, self._first_look(now)) + dt.timedelta(seconds=JUMP_S)
        recalled = 0
        with store_errors():
            for state in (State.RUNNING, State.BLOCKED, State.WAITING):
                recalled += self._tasks.update_many(
                    {"state": state.value, "check_at": {"$gt": beyond}},
                    {"$set": {"check_at": lease_end}},
                ).modified_count
        jumped = now + dt.timedelta(seconds=JUMP_S)
        paused = self._found({"lane": PAUSED, "published_at": {"$gt": jumped}}, limit)
        return recalled + self._begin_pauses_anew(paused, now)

    def _begin_pauses_anew(self, paused: list[Task], now: dt.datetime) -> int:
        updates = []
        for task in paused:
            if task.run_after is not None and task.published_at is not None:
                due = now + (task.run_after - task.published_at)
                fields = {"run_after": due, "published_at": now} | _until(task.deadline, due)
                query = {"_id": task.id, "fence": task.fence}
                updates.append(UpdateOne(query, {"$set": fields}))
        if not updates:
            return 0
        with store_errors():
            return self._tasks.bulk_write(updates, ordered=False).modified_count

    def look_again(self, *tasks: Task) -> None:
        """Put off the rescuer's next look at tasks, with growing pauses, in one round trip."""
        looked = [
            UpdateOne(
                {"_id": task.id, "fence": task.fence},
                {"$set": {"check_at": self._next_look(task)}, "$inc": {"looks": 1}},
            )
            for task in tasks
        ]
        if looked:
            with store_errors():
                self._tasks.bulk_write(looked, ordered=False)

    def _next_look(self, task: Task) -> dt.datetime:
        now = self._clock.now()
        # It is mended within seconds however long it has waited.
        longest_s = self._settings.lease_s / 2
        pause_s = min(self._settings.republish_after_s * 2.0 ** min(task.looks, 20), longest_s)
        due = now + dt.timedelta(seconds=pause_s)
        return due if task.deadline is None else min(due, max(task.deadline, now))

    # -- the compare-and-set ---------------------------------------------------------

    def _move(
        self,
        task: Task,
        fields: Document,
        event: Document,
        *,
        count: Document | None = None,
        lease: dt.datetime | None = None,
    ) -> Task | None:
        fields = self._dead_letter(task, fields)
        with store_errors():
            if not self._transition(
                task.id, task.fence, fields, event=event, count=count, lease=lease
            ):
                return None
        return self._after(task, fields, event, count)

    def _dead_letter(self, task: Task, fields: Document) -> Document:
        """The fields of a transition; of one that makes a dead letter, what marks it as one.

        A child that fails is a value for its parent, and nobody's business but its parent's.
        """
        if fields["state"] != State.FAILED.value or task.parent is not None:
            return fields
        kept = dt.timedelta(days=self._settings.dead_letter_retention_days)
        return fields | {"dead": True, "expire_at": fields["finished_at"] + kept}

    def _transition(
        self,
        task_id: str,
        fence: int,
        fields: Document,
        *,
        event: Document,
        count: Document | None = None,
        token: str | None = None,
        lease: dt.datetime | None = None,
        gone: Iterable[str] = (),
    ) -> bool:
        """The one compare-and-set: (id, fence) -> fence + 1 with these fields.

        With a token, an update that matched nothing is read back: a driver that retried a
        write whose acknowledgement was lost finds its own token there.
        """
        query: Document = {"_id": task_id, "fence": fence}
        if lease is not None:
            query["check_at"] = lease
        update = {"$set": fields} | _recorded(event, {"fence": 1} | (count or {}))
        unset = dict.fromkeys(gone, "")
        if fields["state"] != State.RUNNING.value:
            unset["worker"] = ""
        if "run_after" not in fields:
            unset["run_after"] = ""
        for name in ("check_at", "lane"):
            if name not in fields:
                unset[name] = ""
        if State(fields["state"]).final:
            unset["head"] = ""
        if unset:
            update["$unset"] = unset
        # Without a token nothing would tell which of several went through.
        moved = None if token is None else self._moves((query, update, token))
        if moved is None:
            moved = self._tasks.update_one(query, update).matched_count == 1
            if not moved and token is not None:
                moved = self._went_through([(query, update, token)])[0]
        if moved:
            self._note_ended(fields["state"])
        return moved

    def _move_all(self, moves: Sequence[_Move]) -> list[bool | None]:
        """Whether each went through; None where that is for each to find out alone."""
        try:
            if len(moves) == 1:
                query, update, _ = moves[0]
                matched = self._tasks.update_one(query, update).matched_count
            else:
                writes = [UpdateOne(query, update) for query, update, _ in moves]
                matched = self._tasks.bulk_write(writes, ordered=False).matched_count
        except Exception as error:
            if isinstance(error, ConnectionFailure) or getattr(error, "timeout", False):
                raise
            # One that cannot be stored, for whatever reason, is its own caller's trouble only.
            return [None] * len(moves)
        if matched == len(moves):
            return [True] * len(moves)
        return list(self._went_through(moves))

    def _went_through(self, moves: Sequence[_Move]) -> list[bool]:
        """Which of these are what is stored now; in one read, since one message that comes twice
        must not cost its neighbours a round trip each."""
        asked = {"_id": {"$in": [query["_id"] for query, _, _ in moves]}}
        found = self._tasks.find(asked, {"fence": 1, "token": 1, "state": 1})
        stored = {document["_id"]: document for document in found}
        return [
            (now := stored.get(query["_id"])) is not None
            and now["fence"] == query["fence"] + 1
            and now.get("token") == token
            and now["state"] == update["$set"]["state"]
            for query, update, token in moves
        ]

    def _read_all(self, ids: Sequence[str]) -> list[Document | None]:
        found = {each["_id"]: each for each in self._tasks.find({"_id": {"$in": list(ids)}})}
        return [found.get(id) for id in ids]

    def note(self, task: Task, event: str, facts: Document) -> None:
        """Add an event to the timeline of a task that runs, for those who watch it; nothing where
        it has moved on. Facts hold ids and numbers, never a customer's text."""
        noted = {"at": self._clock.now(), "event": event} | facts
        with store_errors():
            self._tasks.update_one({"_id": task.id, "fence": task.fence}, _recorded(noted))

    @staticmethod
    def _ready(task: Task, now: dt.datetime, epoch: int) -> Document:
        return {
            "state": State.QUEUED.value,
            "queued_at": now,
            "published_at": now,
            "epoch": epoch,
            "lane": lane_of(task.queue, task.place),
            "looks": 0,
        } | _until(task.deadline)

    def _final(
        self, state: State, *, result: Any = None, error: Document | None = None
    ) -> Document:
        now = self._clock.now()
        return {
            "state": state.value,
            "finished_at": now,
            # Beyond the window in which a client's key matters.
            "expire_at": now
            + max(
                dt.timedelta(days=self._settings.task_retention_days),
                dt.timedelta(hours=self._settings.idempotency_hours),
            ),
        } | ({"result": result} if error is None else {"error": error})

    def _after(self, task: Task, fields: Document, event: Document, count: Document | None) -> Task:
        """The task as the update left it, without another read."""
        known = {name: value for name, value in fields.items() if name in _TASK_FIELDS}
        if "state" in known:
            known["state"] = State(known["state"])
            known["fence"] = task.fence + 1
            known.setdefault("check_at", None)
        for name, by in (count or {}).items():
            known[name] = getattr(task, name) + by
        return replace(task, **known, events=task.events + 1, timeline=(*task.timeline, event))

    def _lease_end(self, now: dt.datetime) -> dt.datetime:
        return now + dt.timedelta(seconds=self._settings.lease_s)

    def _first_look(self, now: dt.datetime) -> dt.datetime:
        return now + dt.timedelta(seconds=self._settings.republish_after_s)
