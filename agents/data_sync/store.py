"""What a sync knows and how far it is.

Keeps secret how a sync that was killed goes on: every page's rows are written down as intended
before they are written to the target, and the page as done after that. A run that finds a row
intended by itself writes it again, as it was decided then, and counts it once.

    collection       document                                                     goes
    syncs            _id: name; source, target, schedule; cursor: where the next  overwritten
                     run begins; active: the run that has it, or null; version:
                     raised by each change; last: {run, state, at, counts}
    sync_runs        _id: the task's id; sync; state; dry_run; full; page: how    `expire_at`
                     many are done; cursor; counts; wrong: the first 500 cells;
                     changes: of a dry run, the first 500; reason; started_at,
                     updated_at, finished_at
    sync_links       _id: "{sync}/{key}"; sync; agreed: what both sides had;      with the row
                     run, page, place: where the key came last; outcome;
                     resolved: what a person has decided about
    sync_intents     _id: "{page}/{key}"; page: "{run}/{starts}/{page}"; key;     with the page;
                     row, outcome, write, agreed: what was decided of a row       `expire_at`
    sync_conflicts   _id: "{run}.{hash of the key}"; open_id: "{sync}/{key}"      `expire_at`,
                     while nobody has decided, unique; sync; key; fields: {name:  when decided
                     {agreed, source, target}}; rule; winner; state; by
    sync_tokens      _id: connection; sealed: a refresh token under the client's  overwritten
                     secret; version

Written by `SyncStore` only; the front door reads syncs, runs and conflicts as resources.
"""

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pymongo import ReplaceOne, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from agents.data_sync.reconcile import Decision, Outcome, Winner
from orchestrator.clock import Clock
from orchestrator.declarations import Resource
from orchestrator.errors import Conflict, NotFound
from orchestrator.tasks import ensure_index, store_errors

Document = dict[str, Any]
RunState = Literal["running", "done", "failed", "held"]

REPORTED: Final = 500
DUPLICATE: Final = 11000
COUNTED: Final = (
    "rows",
    "inserted",
    "updated",
    "unchanged",
    "kept",
    "asked",
    "wrong",
    "refused",
    "conflicts",
    "deleted",
)

SYNCS: Final = Resource(
    name="syncs",
    collection="syncs",
    fields=("source", "target", "schedule", "conflicts", "deletes", "active", "last"),
)
RUNS: Final = Resource(
    name="sync_runs",
    collection="sync_runs",
    fields=(
        "sync",
        "state",
        "dry_run",
        "full",
        "counts",
        "wrong",
        "changes",
        "reason",
        "result",
        "started_at",
        "updated_at",
        "finished_at",
    ),
    filters=("sync", "state"),
)
CONFLICTS: Final = Resource(
    name="sync_conflicts",
    collection="sync_conflicts",
    fields=("sync", "key", "fields", "rule", "winner", "state", "by", "at", "decided_at"),
    filters=("sync", "state"),
)


class RunOvertaken(Exception):
    """Another attempt of the run is further: this one was given up for dead."""


@dataclass
class Run:
    """One run of a sync, as it was read; `page` is how many pages are done."""

    id: str
    sync: str
    dry_run: bool
    full: bool
    state: RunState
    page: int
    cursor: Document | None
    counts: dict[str, int]
    started_at: dt.datetime
    starts: int = 0
    wrong: list[Document] = field(default_factory=list)
    changes: list[Document] = field(default_factory=list)
    reason: Document | None = None
    result: Document | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Run":
        """Read what the collection holds."""
        known = {name: document.get(name) for name in cls.__dataclass_fields__ if name != "id"}
        return cls(id=document["_id"], **known)  # type: ignore[arg-type]

    @property
    def mark(self) -> str:
        """What tells keys that came in this run, since it last began to read anew."""
        return f"{self.id}/{self.starts}"

    def start_over(self) -> None:
        """What was read does not count: the source is another one now."""
        self.starts += 1
        self.counts = dict.fromkeys(COUNTED, 0)
        self.wrong, self.changes = [], []

    def report(self) -> Document:
        """As the task's result."""
        return {
            "run_id": self.id,
            "sync": self.sync,
            "state": self.state,
            "dry_run": self.dry_run,
            "counts": self.counts,
            "wrong": self.wrong,
            "changes": self.changes,
            "reason": self.reason,
            "result": self.result,
        }


@dataclass(frozen=True)
class Link:
    """What is known of a key from before."""

    agreed: Document | None
    run: str | None
    page: int | None
    place: int | None
    outcome: Outcome
    resolved: Document


@dataclass(frozen=True)
class Intent:
    """A row as it was read, and what was decided of it."""

    row: Document
    decision: Decision


def insert_new(collection: Collection[Document], documents: list[Document]) -> None:
    """Insert what is not there yet."""
    if not documents:
        return
    try:
        with store_errors():
            collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        faults = (error.details or {}).get("writeErrors", [])
        if not faults or any(fault.get("code") != DUPLICATE for fault in faults):
            raise


class SyncStore:
    """Raises StoreUnavailable where MongoDB does not answer."""

    def __init__(self, database: Database[Document], clock: Clock, kept_days: float) -> None:
        self._syncs = database["syncs"]
        self._runs = database["sync_runs"]
        self._links = database["sync_links"]
        self._intents = database["sync_intents"]
        self._conflicts = database["sync_conflicts"]
        self._tokens = database["sync_tokens"]
        self._clock = clock
        self._kept = dt.timedelta(days=kept_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here, or a list at the front door, relies on."""
        ensure_index(self._runs, "sync", "sync _id")
        ensure_index(self._runs, "state", "state _id")
        ensure_index(self._runs, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._links, "gone", "sync run")
        ensure_index(self._intents, "page", "page")
        ensure_index(self._intents, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._conflicts, "sync", "sync _id")
        ensure_index(self._conflicts, "state", "state _id")
        ensure_index(
            self._conflicts, "open", "open_id", unique=True, where={"open_id": {"$gt": ""}}
        )
        ensure_index(self._conflicts, "expiry", "expire_at", expireAfterSeconds=0)

    # -- syncs ---------------------------------------------------------------------------

    def declare(self, name: str, facts: Document) -> None:
        """Keep what a sync is, for those who look; how far it is stays."""
        with store_errors():
            known = self._syncs.find_one({"_id": name})
            if known is None:
                fresh = {"_id": name, "cursor": None, "active": None, "version": 0, "last": None}
                try:
                    self._syncs.insert_one(fresh | facts)
                except DuplicateKeyError:
                    return
            elif any(known.get(each) != value for each, value in facts.items()):
                self._syncs.update_one({"_id": name}, {"$set": facts})

    def retire(self, names: Iterable[str]) -> None:
        """Forget syncs that the file names no more; their links stay, should they come back."""
        with store_errors():
            self._syncs.delete_many({"_id": {"$nin": list(names)}})

    def sync(self, name: str) -> Document:
        """A sync as it stands.

        Raises:
            NotFound: there is none of this name.
        """
        with store_errors():
            found = self._syncs.find_one({"_id": name})
        if found is None:
            raise NotFound("No such sync")
        return found

    def take(self, name: str, run_id: str) -> str | None:
        """Let a run have its sync; the run that has it, where that is another one."""
        while True:
            known = self.sync(name)
            if known["active"] not in (None, run_id):
                return str(known["active"])
            if known["active"] == run_id or self._change(known, {"active": run_id}):
                return None

    def release(self, name: str, run_id: str) -> None:
        """Let another run have the sync."""
        while (known := self.sync(name))["active"] == run_id:
            if self._change(known, {"active": None}):
                return

    def _change(self, known: Document, fields: Document) -> bool:
        with store_errors():
            return bool(
                self._syncs.update_one(
                    {"_id": known["_id"], "version": known["version"]},
                    {"$set": fields, "$inc": {"version": 1}},
                ).matched_count
            )

    # -- runs ----------------------------------------------------------------------------

    def begin(self, run_id: str, sync: str, *, dry_run: bool, full: bool) -> Run:
        """A run of a sync, begun where the last one ended; or as far as it is, if it was begun."""
        with store_errors():
            found = self._runs.find_one({"_id": run_id})
            if found is None:
                now = self._clock.now()
                found = {
                    "_id": run_id,
                    "sync": sync,
                    "dry_run": dry_run,
                    "full": full,
                    "state": "running",
                    "page": 0,
                    "cursor": None if full else self.sync(sync)["cursor"],
                    "counts": dict.fromkeys(COUNTED, 0),
                    "wrong": [],
                    "changes": [],
                    "reason": None,
                    "result": None,
                    "starts": 0,
                    "started_at": now,
                    "updated_at": now,
                }
                try:
                    self._runs.insert_one(dict(found))
                except DuplicateKeyError:
                    return self.run(run_id)
        return Run.from_document(found)

    def run(self, run_id: str) -> Run:
        """A run as it stands.

        Raises:
            NotFound: no such run.
        """
        with store_errors():
            found = self._runs.find_one({"_id": run_id})
        if found is None:
            raise NotFound("No such run of a sync")
        return Run.from_document(found)

    def page_done(self, run: Run, cursor: Document) -> None:
        """The checkpoint: one page more is done, as the run counts it now.

        Raises:
            RunOvertaken: another attempt has done it.
        """
        self._write(run, {"cursor": cursor, "page": run.page + 1})
        with store_errors():
            self._intents.delete_many({"page": f"{run.mark}/{run.page}"})
        run.cursor, run.page = cursor, run.page + 1

    def finish(self, run: Run, state: RunState, reason: Document | None = None) -> None:
        """End a run; where it is done, the next one begins after it."""
        now = self._clock.now()
        run.state, run.reason = state, reason
        ended = {"state": state, "reason": reason, "result": run.result, "finished_at": now}
        self._write(run, ended | {"expire_at": now + self._kept})
        told = {"run": run.id, "state": state, "at": now, "counts": run.counts}
        while True:
            known = self.sync(run.sync)
            fields: Document = {"last": told}
            if state == "done" and not run.dry_run:
                fields["cursor"] = run.cursor
            if known["active"] == run.id:
                fields["active"] = None
            if self._change(known, fields):
                return

    def _write(self, run: Run, fields: Document) -> None:
        told = {
            "counts": run.counts,
            "wrong": run.wrong,
            "changes": run.changes,
            "starts": run.starts,
            "updated_at": self._clock.now(),
        }
        with store_errors():
            written = self._runs.update_one(
                {"_id": run.id, "page": run.page, "state": "running"}, {"$set": told | fields}
            )
        if not written.matched_count:
            raise RunOvertaken(run.id)

    # -- links ---------------------------------------------------------------------------

    def links(self, sync: str, keys: Sequence[str]) -> dict[str, Link]:
        """Key -> what is known of it; keys that never came are left out."""
        ids = {f"{sync}/{key}": key for key in keys}
        with store_errors():
            found = list(self._links.find({"_id": {"$in": list(ids)}}))
        return {
            ids[each["_id"]]: Link(
                each.get("agreed"),
                each.get("run"),
                each.get("page"),
                each.get("place"),
                each.get("outcome", "unchanged"),
                each.get("resolved", {}),
            )
            for each in found
        }

    def intended(self, run: Run) -> dict[str, Intent]:
        """What an attempt that died has decided of the page that is next; by key."""
        with store_errors():
            found = list(self._intents.find({"page": f"{run.mark}/{run.page}"}))
        return {
            each["key"]: Intent(
                each["row"], Decision(each["outcome"], each["write"], each["agreed"])
            )
            for each in found
        }

    def intend(
        self, run: Run, decided: Mapping[str, Decision], records: Mapping[str, Document]
    ) -> None:
        """Write down what a page's rows will do, before they do it."""
        page = f"{run.mark}/{run.page}"
        expire_at = self._clock.now() + self._kept
        insert_new(
            self._intents,
            [
                {
                    "_id": f"{page}/{key}",
                    "page": page,
                    "key": key,
                    "row": records[key],
                    "outcome": decision.outcome,
                    "write": decision.write,
                    "agreed": decision.agreed,
                    "expire_at": expire_at,
                }
                for key, decision in decided.items()
            ],
        )

    def settle(
        self,
        run: Run,
        decided: Mapping[str, Decision],
        links: Mapping[str, Link],
        places: Mapping[str, int | None],
    ) -> None:
        """The rows are at the target, or have nothing to write: both sides agree now. New links
        are inserted and those that stay are marked in one go each: the embedded server commits
        every update of a bulk by itself."""
        came = {"run": run.mark, "page": run.page}
        fresh, staying, changed = [], defaultdict(list), []
        for key, decision in decided.items():
            link = links.get(key)
            told = {"agreed": decision.agreed, "outcome": decision.outcome, "place": places[key]}
            if link is None:
                fresh.append({"_id": f"{run.sync}/{key}", "sync": run.sync} | came | told)
            elif link.agreed == decision.agreed and (
                # Where a row stands is asked for those that are written.
                not decision.write or link.place == places[key]
            ):
                staying[decision.outcome].append(f"{run.sync}/{key}")
            else:
                changed.append(UpdateOne({"_id": f"{run.sync}/{key}"}, {"$set": came | told}))
        insert_new(self._links, fresh)
        with store_errors():
            for outcome, ids in staying.items():
                self._links.update_many(
                    {"_id": {"$in": ids}}, {"$set": came | {"outcome": outcome}}
                )
            if changed:
                self._links.bulk_write(changed, ordered=False)

    def came(self, run: Run, keys: Sequence[str]) -> None:
        """The keys came in rows that did not go in: they are not gone, if they are known."""
        if keys:
            with store_errors():
                self._links.update_many(
                    {"_id": {"$in": [f"{run.sync}/{key}" for key in keys]}},
                    {"$set": {"run": run.mark, "page": run.page, "outcome": "unchanged"}},
                )

    def gone(self, run: Run) -> list[str]:
        """Keys that came before and did not come in this run."""
        skip = len(run.sync) + 1
        with store_errors():
            found = self._links.find({"sync": run.sync, "run": {"$ne": run.mark}}, {"_id": 1})
            return sorted(each["_id"][skip:] for each in found)

    def linked(self, sync: str) -> int:
        """How many keys of a sync are known."""
        with store_errors():
            return self._links.count_documents({"sync": sync})

    def unlink(self, sync: str, keys: Sequence[str]) -> None:
        """Forget keys: they are gone on both sides."""
        with store_errors():
            self._links.delete_many({"_id": {"$in": [f"{sync}/{key}" for key in keys]}})

    # -- conflicts -----------------------------------------------------------------------

    def conflict(
        self,
        run: Run,
        key: str,
        rule: str,
        winner: Winner | None,
        fields: Mapping[str, Document],
    ) -> None:
        """Keep a conflict for those who look, and open where a person has to decide: one for
        each key at a time, as the sides are now."""
        now = self._clock.now()
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        open_id = f"{run.sync}/{key}"
        document: Document = {
            "_id": f"{run.id}.{name}",
            "sync": run.sync,
            "key": key,
            "fields": dict(fields),
            "rule": rule,
            "winner": winner,
            "state": "open" if winner is None else "decided",
            "by": None if winner is None else "rule",
            "at": now,
            "decided_at": None if winner is None else now,
        }
        if winner is None:
            document["open_id"] = open_id
        else:
            document["expire_at"] = now + self._kept
        with store_errors():
            if winner is None:
                changed = self._conflicts.update_one(
                    {"open_id": open_id}, {"$set": {"fields": dict(fields)}}
                )
                if changed.matched_count:
                    return
            self._conflicts.replace_one({"_id": document["_id"]}, document, upsert=True)

    def open_conflict(self, conflict_id: str) -> Document:
        """A conflict that waits for a person.

        Raises:
            NotFound: no such conflict.
            Conflict: it is decided.
        """
        with store_errors():
            found = self._conflicts.find_one({"_id": conflict_id})
        if found is None:
            raise NotFound("No such conflict")
        if found["state"] != "open":
            raise Conflict("This conflict is decided.", winner=found["winner"])
        return found

    def decided(self, conflict_id: str, winner: Winner, by: str) -> None:
        """A person has decided; repeatable."""
        now = self._clock.now()
        with store_errors():
            self._conflicts.update_one(
                {"_id": conflict_id, "state": "open"},
                {
                    "$set": {
                        "state": "decided",
                        "winner": winner,
                        "by": by,
                        "decided_at": now,
                        "expire_at": now + self._kept,
                    },
                    "$unset": {"open_id": ""},
                },
            )

    def agree(self, sync: str, key: str, fields: Document) -> None:
        """Both sides agree on these fields of a key from now on."""
        changed = {f"agreed.{name}": value for name, value in fields.items()}
        changed |= {f"resolved.{name}": value for name, value in fields.items()}
        with store_errors():
            self._links.update_one({"_id": f"{sync}/{key}"}, {"$set": changed})

    # -- tokens --------------------------------------------------------------------------

    def token(self, connection: str) -> tuple[bytes | None, int]:
        """A sealed token that was kept, and its version."""
        with store_errors():
            found = self._tokens.find_one({"_id": connection})
        return (None, 0) if found is None else (bytes(found["sealed"]), found["version"])

    def keep_token(self, connection: str, sealed: bytes, version: int) -> bool:
        """Keep the token that follows one of a version; False where another was first."""
        document = {"_id": connection, "sealed": sealed, "version": version + 1}
        with store_errors():
            if version == 0:
                try:
                    self._tokens.insert_one(document)
                except DuplicateKeyError:
                    return False
                return True
            return bool(
                self._tokens.replace_one(
                    {"_id": connection, "version": version}, document
                ).matched_count
            )


class Records:
    """Rows of others, kept as they are under a dataset's name: a target, and a source.

    Collection `records`, one document per row: {_id: "{dataset}/{key}", dataset, values,
    changed_at}; kept until the sync that brought them deletes them.
    """

    def __init__(self, database: Database[Document], clock: Clock) -> None:
        self.collection = database["records"]
        self._clock = clock

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self.collection, "dataset", "dataset _id")

    def find(self, dataset: str, keys: Iterable[str]) -> dict[str, Document]:
        """Key -> its document."""
        skip = len(dataset) + 1
        with store_errors():
            found = self.collection.find({"_id": {"$in": [f"{dataset}/{key}" for key in keys]}})
            return {each["_id"][skip:]: each for each in found}

    def page(self, dataset: str, after: str, limit: int) -> list[tuple[str, Document]]:
        """Keys after another with their documents, in order."""
        skip = len(dataset) + 1
        query = {"dataset": dataset, "_id": {"$gt": f"{dataset}/{after}"}}
        with store_errors():
            found = self.collection.find(query).sort("_id", 1).limit(limit)
            return [(each["_id"][skip:], each) for each in found]

    def put(self, dataset: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Put values under keys; fields that are not given stay."""
        now = self._clock.now()
        known = self.find(dataset, rows)
        fresh: list[Document] = []
        changed = []
        for key, values in rows.items():
            document = {"_id": f"{dataset}/{key}", "dataset": dataset, "changed_at": now}
            if key in known:
                document["values"] = known[key]["values"] | dict(values)
                changed.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
            else:
                fresh.append(document | {"values": dict(values)})
        insert_new(self.collection, fresh)
        if changed:
            with store_errors():
                self.collection.bulk_write(changed, ordered=False)

    def delete(self, dataset: str, keys: Iterable[str]) -> None:
        """Take rows away."""
        with store_errors():
            self.collection.delete_many({"_id": {"$in": [f"{dataset}/{key}" for key in keys]}})
