"""A customer's data, found wherever it is kept: given out, or erased.

Keeps secret where that is, and how it is erased while tasks of the customer run. Modules and
agents declare what they hold (`Holding`); tasks, contacts and files are known here. A customer
is a phone: its sessions are those that hold it, and what belongs to these belongs to it.

An erasure is durable and goes on from wherever it was cut short, by the rescuer or by whoever
asked for it. Its sessions go first, so that nothing can be committed to them any more; what is
queued, blocked or waiting is cancelled, which promotes what is behind it; what runs is asked to
stop, and waited for; then everything is erased. Once requests that were on their way when it
was asked for have ended, it looks through everything once more. What was created after it was
asked for is the customer's new life, and stays.

Collection `erasures`, one document per erasure:

    _id           rises with time, as a task's id does
    alias         the keyed hash of the phone (`contacts.py`)
    by            who asked for it
    requested_at, done_at
    stage         find -> stop -> scan -> runs -> erase (-> settle -> find ...) -> done
    check_at      when the rescuer goes on with it; gone when it is done
    phone, sessions, scanned, scanned_runs
                  what is left to be found, and how far; gone when it is done
    counts        {collection: documents erased or made anonymous}
    expire_at     set when it is done

What stays of a customer: quotes and their totals, without name, phone and conversation; tasks
as empty shells for as long as their idempotency keys matter, so that a client that sends an old
message again does not bring it back; that it has opted out, under the keyed hash, so that an
erasure does not allow writing to it again.
"""

import base64
import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne
from pymongo.database import Database

from orchestrator.advance import RunState
from orchestrator.audit import Audit
from orchestrator.clock import Clock
from orchestrator.contacts import Contacts
from orchestrator.coordinator import Coordinator
from orchestrator.declarations import DeclarationStore, Holding
from orchestrator.errors import NotFound, TaskIsFinal
from orchestrator.logs import log
from orchestrator.mending import each
from orchestrator.phones import names, spellings, texts
from orchestrator.settings import Settings
from orchestrator.tasks import BY_ID, TaskStore, earlier_than, ensure_index, new_id, store_errors
from orchestrator.workflows import Workflows

Document = dict[str, Any]

CHUNK = 200
LOOK_AGAIN_S = 0.5
# The rescuer's next try at an erasure that it stumbled over; one that goes well says its own.
PUT_OFF_S = 5.0
SCANNED = 2000  # tasks looked through in one piece
LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
# Stores of the engine itself, with what they are found by.
OURS = (
    Holding("sessions", session="_id", phone="phone", began="created_at"),
    Holding("messages", session="session_id", began="at"),
    Holding("contexts", session="session_id", began="at"),
    Holding("outbox", session="session_id", phone="recipient"),
    Holding("responses", session="body.session_id"),
)
HIDDEN = ("token", "idempotency", "fingerprint", "twin")


@dataclass(frozen=True)
class Erasure:
    """An erasure as it stands; says nothing of whom it is about."""

    id: str
    state: str  # "erasing" | "done"
    requested_at: dt.datetime
    done_at: dt.datetime | None
    counts: Document

    @classmethod
    def from_document(cls, document: Document) -> "Erasure":
        """Read what the collection holds."""
        return cls(
            id=document["_id"],
            state="done" if document["stage"] == "done" else "erasing",
            requested_at=document["requested_at"],
            done_at=document.get("done_at"),
            counts=document["counts"],
        )


class Customers:
    """Phones are in E.164. Raises StoreUnavailable as the task store does."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        store: TaskStore,
        coordinator: Coordinator,
        declarations: DeclarationStore,
        contacts: Contacts,
        audit: Audit,
        workflows: Workflows,
        settings: Settings,
    ) -> None:
        self._database = database
        self._erasures = database["erasures"]
        self._clock = clock
        self._store = store
        self._coordinator = coordinator
        self._declarations = declarations
        self._contacts = contacts
        self._audit = audit
        self._workflows = workflows
        self._settings = settings

    def ensure_indexes(self) -> None:
        """Make every index that a query by phone relies on; those by session are their makers'."""
        ensure_index(self._erasures, "due", "check_at")
        ensure_index(self._erasures, "customer", "alias check_at")
        ensure_index(self._erasures, "expiry", "expire_at", expireAfterSeconds=0)
        for holding in self._holdings():
            if holding.phone is not None:
                ensure_index(self._database[holding.collection], "by_phone", holding.phone)

    # -- giving out ------------------------------------------------------------------

    def export(self, phone: str, *, by: str) -> Document:
        """All that is kept of a customer, as JSON: {exported_at, phone, contact, tasks,
        <collection>: [document]}.

        Raises:
            StoreUnavailable: MongoDB does not answer.
        """
        with self._audit.act(by, "customer.export", self._contacts.alias(phone)) as outcome:
            now = self._clock.now()
            later = now + dt.timedelta(days=1)
            sessions = self._sessions_of(phone, later, set())
            told: Document = {"exported_at": now, "phone": phone}
            told["contact"] = self._contacts.known(phone)
            told["runs"] = [
                {name: value for name, value in run.items() if name not in HIDDEN}
                for run in self._workflows.between(self._oldest(), later)
                if self._is_about(run, phone, sessions)
            ]
            told["tasks"] = [
                {name: value for name, value in document.items() if name not in HIDDEN}
                for document in self._tasks_of(phone, sessions, told["runs"], later)
            ]
            made_by = [task["_id"] for task in told["tasks"]]
            for holding in self._holdings():
                held = self._held(holding, phone, sessions, later)
                found = {each["_id"]: each for each in held}
                found |= {each["_id"]: each for each in self._made_by(holding, made_by)}
                told[holding.collection] = [*told.get(holding.collection, ()), *found.values()]
                if holding.files:
                    told.setdefault("files", []).extend(self._files_of(found.values()))
            outcome |= {name: len(value) for name, value in told.items() if isinstance(value, list)}
        exported: Document = _as_json(told)
        return exported

    def _tasks_of(
        self, phone: str, sessions: set[str], runs: list[Document], until: dt.datetime
    ) -> Iterator[Document]:
        seen: set[str] = set()
        for run in runs:
            steps = self._store.descendants(run["_id"])
            seen.update(steps)
            yield from self._store.raw(steps)
        for session_id in sorted(sessions):
            for task_id in self._store.ids_of_session(session_id, until, None):
                if task_id not in seen:
                    seen.add(task_id)
                    yield from self._store.raw([task_id])
        for document in self._store.without_session(self._oldest(), until):
            if document["_id"] not in seen and names(document, phone):
                for task_id in [document["_id"], *self._store.descendants(document["_id"])]:
                    if task_id not in seen:
                        seen.add(task_id)
                        yield from self._store.raw([task_id])

    def _files_of(self, found: Iterable[Document]) -> Iterator[Document]:
        for document in found:
            yield from self._database["files"].find(_of_document(document["_id"]))

    # -- erasing ---------------------------------------------------------------------

    def erase(self, phone: str, *, by: str) -> Erasure:
        """Begin to erase all that is kept of a customer up to now; one that is under way is
        answered as it stands.

        When this returns, it will be done, whatever dies. `advance` hurries it.
        """
        alias = self._contacts.alias(phone)
        with self._audit.act(by, "customer.erase", alias) as outcome:
            with store_errors():
                under_way = {"alias": alias, "check_at": {"$gt": LONG_AGO}}
                known = self._erasures.find_one(under_way)
            if known is None:
                now = self._clock.now()
                known = {
                    "_id": new_id(now),
                    "alias": alias,
                    "by": by,
                    "requested_at": now,
                    "stage": "find",
                    "round": 1,
                    "check_at": now,
                    "phone": phone,
                    "sessions": [],
                    "scanned": self._oldest(),
                    "scanned_runs": self._oldest(),
                    "counts": {},
                }
                with store_errors():
                    self._erasures.insert_one(known)
            outcome["erasure"] = known["_id"]
        return Erasure.from_document(known)

    def get(self, erasure_id: str) -> Erasure:
        """An erasure as it stands.

        Raises:
            NotFound: there is none of this id.
        """
        return Erasure.from_document(self._read(erasure_id))

    def rescue(self, limit: int) -> int:
        """Go on with erasures that are due; returns how many."""
        with store_errors():
            due = list(
                self._erasures.find(
                    {"check_at": earlier_than(self._clock.now())}, {"_id": 1}
                ).limit(limit)
            )
            # Put off first: one that cannot be gone on with keeps none of the others waiting.
            ids = [document["_id"] for document in due]
            later = self._clock.now() + dt.timedelta(seconds=PUT_OFF_S)
            self._erasures.update_many(
                {"_id": {"$in": ids}, "check_at": {"$gt": LONG_AGO}}, {"$set": {"check_at": later}}
            )
        each("erasures", ids, lambda erasure_id: bool(self.advance(erasure_id)), str)
        return len(due)

    def advance(self, erasure_id: str) -> Erasure:
        """Do the next piece of an erasure, bounded in work; repeatable, also by several at once."""
        erasure = self._read(erasure_id)
        step = {
            "find": self._find,
            "stop": self._stop,
            "scan": self._scan,
            "runs": self._runs,
            "erase": self._erase,
            "settle": self._settle,
        }.get(erasure["stage"])
        if step is not None:
            erasure = step(erasure)
        return Erasure.from_document(erasure)

    def _find(self, erasure: Document) -> Document:
        known = set(erasure["sessions"])
        sessions = self._sessions_of(erasure["phone"], erasure["requested_at"], known)
        # Written down before they go: nothing else tells what else there is.
        self._on(erasure, sessions=sorted(sessions))
        gone = self._erase_held(OURS[0], erasure["phone"], sessions, erasure["requested_at"])
        return self._on(erasure, "stop", {"sessions": gone}, sessions=sorted(sessions))

    def _stop(self, erasure: Document) -> Document:
        # All are asked before any is waited for.
        ended = [self._ended(task_id) for task_id in self._linked(erasure)]
        return self._on(erasure, "scan") if all(ended) else self._on(erasure)

    def _scan(self, erasure: Document) -> Document:
        """Tasks of no session, that name the phone somewhere."""
        until = erasure["requested_at"] + dt.timedelta(seconds=self._settle_s)
        counts: Counter[str] = Counter()
        looked = 0
        for document in self._store.without_session(erasure["scanned"], until):
            looked += 1
            if looked > SCANNED or counts.total() >= CHUNK:
                far = document["created_at"] - dt.timedelta(seconds=1)
                return self._on(erasure, None, counts, hurry=True, scanned=far)
            old = document["created_at"] <= erasure["requested_at"]
            if not old or not names(document, erasure["phone"]):
                continue
            whole = [document["_id"], *self._store.descendants(document["_id"])]
            if not all([self._ended(task_id) for task_id in whole]):
                return self._on(erasure, None, counts)
            counts += self._erase_tasks(whole)
        return self._on(erasure, "runs", counts)

    def _runs(self, erasure: Document) -> Document:
        """Runs of workflows that name the phone or a session somewhere, with their steps."""
        counts: Counter[str] = Counter()
        looked = 0
        for document in self._workflows.between(erasure["scanned_runs"], erasure["requested_at"]):
            looked += 1
            if looked > SCANNED or counts.total() >= CHUNK:
                far = document["created_at"] - dt.timedelta(seconds=1)
                return self._on(erasure, None, counts, hurry=True, scanned_runs=far)
            if not self._is_about(document, erasure["phone"], set(erasure["sessions"])):
                continue
            steps = self._store.descendants(document["_id"])
            if not self._run_ended(document) or not all([self._ended(step) for step in steps]):
                return self._on(erasure, None, counts)
            # The run last: it is what the rest is found by.
            counts += self._erase_tasks(steps)
            counts["runs"] += self._workflows.erase(document["_id"])
        return self._on(erasure, "erase", counts)

    @staticmethod
    def _is_about(run: Document, phone: str, sessions: set[str]) -> bool:
        return names(run, phone) or any(text in sessions for text in texts(run))

    def _run_ended(self, run: Document) -> bool:
        if "due_at" in run or run["state"] not in _ENDED_RUNS:
            with contextlib.suppress(TaskIsFinal):
                if not run["cancel"]:
                    self._workflows.cancel(run["_id"])
                self._workflows.advance(run["_id"])
            return False
        return True

    def _erase(self, erasure: Document) -> Document:
        linked = list(self._linked(erasure))
        if linked:
            # What is erased is not found again: so until none is found.
            ended = [task_id for task_id in linked if self._ended(task_id)]
            erased = self._erase_tasks(ended)
            return self._on(erasure, None, erased, hurry=len(ended) == len(linked))
        counts: Counter[str] = Counter()
        sessions = set(erasure["sessions"])
        for holding in self._holdings():
            n = self._erase_held(holding, erasure["phone"], sessions, erasure["requested_at"])
            counts[holding.collection] += n
        self._contacts.forget_but_opt_out(erasure["phone"])
        return self._on(erasure, "settle", counts)

    def _settle(self, erasure: Document) -> Document:
        now = self._clock.now()
        again_at = erasure["requested_at"] + dt.timedelta(seconds=self._settle_s)
        if now < again_at:
            return self._on(erasure)
        if erasure["round"] == 1:
            # Once more: what was on its way when it was asked for has arrived by now.
            since = erasure["requested_at"] - dt.timedelta(minutes=10)
            return self._on(erasure, "find", hurry=True, round=2, scanned=since, scanned_runs=since)
        kept = dt.timedelta(days=self._settings.audit_retention_days)
        with store_errors():
            done = self._erasures.update_one(
                {"_id": erasure["_id"]},
                {
                    "$set": {"stage": "done", "done_at": now, "expire_at": now + kept},
                    "$unset": dict.fromkeys(
                        ("phone", "sessions", "scanned", "scanned_runs", "check_at"), ""
                    ),
                },
            )
        if done.modified_count:
            log.info("customer.erased", erasure_id=erasure["_id"], **erasure["counts"])
        return self._read(erasure["_id"])

    def _on(
        self,
        erasure: Document,
        stage: str | None = None,
        counts: Mapping[str, int] | None = None,
        *,
        hurry: bool = False,
        **fields: Any,
    ) -> Document:
        """Write down how far it is; without a stage it is looked at again in a moment."""
        pause_s = 0.0 if stage or hurry else LOOK_AGAIN_S
        due = self._clock.now() + dt.timedelta(seconds=pause_s)
        update: Document = {"$set": fields | {"check_at": due}}
        if stage:
            update["$set"]["stage"] = stage
        more = {f"counts.{name}": n for name, n in (counts or {}).items() if n}
        if more:
            update["$inc"] = more
        with store_errors():
            # Of several that are at it none overtakes another.
            self._erasures.update_one({"_id": erasure["_id"], "stage": erasure["stage"]}, update)
        return self._read(erasure["_id"])

    def _linked(self, erasure: Document) -> Iterator[str]:
        """Tasks of the customer's sessions and of what leaves to its phone, oldest first."""
        requested_at = erasure["requested_at"]
        for session_id in erasure["sessions"]:
            began = self._session_began(session_id)
            again = began if began is not None and began >= requested_at else None
            # One that was accepted while its session went belongs to no other.
            until = requested_at + dt.timedelta(seconds=self._settle_s)
            yield from self._store.ids_of_session(session_id, again or until, CHUNK)
        for channel in self._channels(erasure["phone"]):
            key = f"out:{channel}:{erasure['alias']}"
            yield from self._store.ids_of_key(key, requested_at, CHUNK)

    def _session_began(self, session_id: str) -> dt.datetime | None:
        """When a session of this id began that is there now: it is the customer's next one."""
        with store_errors():
            found = self._database["sessions"].find_one({"_id": session_id}, {"created_at": 1})
        return None if found is None else found["created_at"]

    def _channels(self, phone: str) -> set[str]:
        with store_errors():
            found = self._database["outbox"].find({"recipient": phone}, {"channel": 1})
            return {document["channel"] for document in found}

    def _ended(self, task_id: str) -> bool:
        """Whether a task has ended, if need be by being cancelled now; what runs is asked to."""
        found = self._store.many([task_id]).get(task_id)
        if found is None or found.state.final:
            return True
        with contextlib.suppress(TaskIsFinal):
            if not found.cancel:
                found = self._coordinator.cancel(task_id, *_WHY)
        return found.state.final

    @property
    def _settle_s(self) -> float:
        # The longest that the driver waits for one answer: a request's, or a worker's write.
        return 4 * self._settings.store_timeout_s

    # -- what is held ----------------------------------------------------------------

    def _holdings(self) -> list[Holding]:
        declared = self._declarations.all(fresh=True).values()
        return [*OURS, *(holding for agent in declared for holding in agent.holdings)]

    def _sessions_of(self, phone: str, before: dt.datetime, known: set[str]) -> set[str]:
        """Ids of the sessions that hold the phone, themselves or in what was made in them."""
        sessions = set(known)
        for holding in self._holdings():
            if holding.session is None:
                continue
            for document in self._held(holding, phone, set(), before):
                session_id = _at(document, holding.session)
                if isinstance(session_id, str):
                    sessions.add(session_id)
        return sessions

    def _held(
        self, holding: Holding, phone: str, sessions: Iterable[str], before: dt.datetime
    ) -> Iterator[Document]:
        """Documents of a customer: of its phone those that began before a time, of its sessions
        all, but for those of a session of the same id that began after it."""
        queries: list[tuple[Document, dt.datetime | None]] = []
        if holding.phone is not None:
            queries += [({holding.phone: written}, before) for written in spellings(phone)]
        if holding.session is not None:
            for session_id in sorted(sessions):
                began = self._session_began(session_id)
                later = began if began is not None and began >= before else None
                queries.append(({holding.session: session_id}, later))
        seen = set()
        for query, until in queries:
            with store_errors():
                found = list(self._database[holding.collection].find(query))
            for document in found:
                begun = _began(holding, document)
                late = begun is not None and until is not None and begun >= until
                if document["_id"] not in seen and not late:
                    seen.add(document["_id"])
                    yield document

    def _erase_held(
        self, holding: Holding, phone: str, sessions: set[str], before: dt.datetime
    ) -> int:
        found = self._held(holding, phone, sessions, before)
        return self._erase_these(holding, list(found))

    def _made_by(self, holding: Holding, task_ids: Iterable[str]) -> Iterator[Document]:
        """Documents under ids of tasks: the task's own, or with what begins with it and a dot."""
        if holding.began != "_id":
            return
        collection = self._database[holding.collection]
        for task_id in task_ids:
            with store_errors():
                yield from collection.find({"_id": task_id})
                yield from collection.find(_of_document(task_id))

    def _erase_tasks(self, task_ids: list[str]) -> Counter[str]:
        """Erase tasks that have ended, and before them what they made: a shell does not tell
        any more whose that is. How many documents of which collection."""
        counts: Counter[str] = Counter()
        for holding in self._holdings():
            made = list(self._made_by(holding, task_ids))
            counts[holding.collection] += self._erase_these(holding, made)
        counts["tasks"] += sum(self._store.erase(task_id) for task_id in task_ids)
        return counts

    def _erase_these(self, holding: Holding, documents: list[Document]) -> int:
        collection = self._database[holding.collection]
        left = holding.anonymise
        # What is anonymous already tells of nobody.
        ids = {
            document["_id"]
            for document in documents
            if not left or any(_at(document, path) is not None for path in left)
        }
        if not ids:
            return 0
        with store_errors():
            if holding.files:
                for document_id in ids:
                    self._database["files"].delete_many(_of_document(document_id))
            if not holding.anonymise:
                return collection.delete_many({"_id": {"$in": list(ids)}}).deleted_count
            update: Document = {"$set": dict.fromkeys(holding.anonymise)}
            if holding.revision is not None:
                update["$inc"] = {holding.revision: 1}
            writes = [UpdateOne({"_id": document_id}, update) for document_id in ids]
            return collection.bulk_write(writes, ordered=False).modified_count

    def _oldest(self) -> dt.datetime:
        """No task is older."""
        kept_days = max(
            self._settings.task_retention_days, self._settings.dead_letter_retention_days
        )
        return self._clock.now() - dt.timedelta(days=2 * kept_days)

    def _read(self, erasure_id: str) -> Document:
        with store_errors():
            found = self._erasures.find_one({"_id": erasure_id})
        if found is None:
            raise NotFound("No such erasure")
        return found


_ENDED_RUNS = frozenset(state.value for state in RunState if state.final)
_WHY = ("erased", "Erased at the customer's request.")


def _of_document(document_id: str) -> Document:
    """Files whose id is a document's, a dot, and what else."""
    return {"_id": {"$gte": f"{document_id}.", "$lt": f"{document_id}/"}}


def _began(holding: Holding, document: Document) -> dt.datetime | None:
    """When what led to a document began; None where it does not tell."""
    told = _at(document, holding.began)
    if isinstance(told, str):
        try:
            return BY_ID.time_of(told)
        except ValueError:
            return None
    return told if isinstance(told, dt.datetime) else None


def _at(document: Document, path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    # What is left are ids and decimals.
    plain = value is None or isinstance(value, (str, int, float))
    return value if plain else str(value)
