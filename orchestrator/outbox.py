"""What leaves the system: never before its commit, in order, and once where that can be had.

Keeps secret how an effect on the world survives the death of whoever is at it. A handler
gives `Outgoing`s to a commit (`Sessions.commit(outgoing=...)`, or `Outbox.put` where there is
no session); they become entries here, each with a `deliver` task whose ordering key is the
recipient: so one sender per recipient, in order, with leases, retries and rescue as any task
has them. An entry is marked `sending` before anything is sent. A sender that finds an entry
marked by another one, which is gone, knows that it may have been sent:

- on a channel whose recipient recognises a repetition by the entry's id, it is sent again;
- on one that does not, it becomes `uncertain`: only a person may have it sent again.

Collection `outbox`, one document per entry:

    _id            "{source}.{n}": a second run of what committed it makes the same entry
    task_id        the task whose commit it belongs to, or what a person said
    session_id     its conversation, or null
    channel        "whatsapp", "n8n", "webhook"; "local": the page that shows the session
    recipient      to whom: a phone in E.164, or what the channel takes for one
    author         "bot" | "person": what a bot wrote is dropped when a person takes over
    purpose        "reply" | "follow_up" | "event": only follow-ups heed an opt-out
    body           what is said, as the channel takes it
    state          pending -> sending -> sent | failed | uncertain | dropped
    version        rises with every change; all that a compare-and-set filters on
    round          rises when an operator has it sent again: each round is a task of its own
    opened_at      when the round began
    token          of the run that is, or was last, sending
    attempts       how often it was marked as being sent
    reason         {code, detail} of the last trouble, or null
    reference      what the recipient's side calls it
    receipt        {status, times: {status: at}}: how far it came, as the other side told
    listed         rises with the time of creation: what lists are read by
    created_at, updated_at, sent_at
    check_at       when the rescuer looks next; while pending or sending only
    expire_at      set once it is sent, failed or dropped; an uncertain one waits for a person

Written by this module only.
"""

import datetime as dt
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.audit import Audit
from orchestrator.clock import Clock
from orchestrator.contacts import Contacts
from orchestrator.errors import (
    Conflict,
    NotFound,
    OrchestratorError,
    RetryLater,
    StoreUnavailable,
)
from orchestrator.logs import log, pseudonym
from orchestrator.mending import each
from orchestrator.pages import newest_first
from orchestrator.settings import Settings
from orchestrator.tasks import (
    BY_ID,
    Priority,
    Request,
    Task,
    earlier_than,
    ensure_index,
    new_id,
    new_token,
    store_errors,
)

if TYPE_CHECKING:
    from orchestrator.context import Session, Sessions
    from orchestrator.coordinator import Coordinator

Document = dict[str, Any]
Decision = Literal["send_again", "drop"]
TASK_TYPE = "deliver"
# The first look at an entry that is neither sent nor given up, and the next ones.
LOOK_AFTER_S = 5.0
LOOK_AGAIN_S = 60.0


_NEWEST = replace(BY_ID, field="listed")
# The longest text that every channel takes at once: WhatsApp's limit.
TEXT_CHARS = 4096
# What the other side tells of a message comes in any order; the highest counts.
RECEIPTS = ("sent", "delivered", "read", "failed")


class EntryState(StrEnum):
    """Where an entry stands."""

    PENDING = "pending"  # nothing was sent, or surely did not arrive
    SENDING = "sending"  # it may leave at any moment, or may have left
    SENT = "sent"  # the recipient's side has taken it
    FAILED = "failed"  # it surely was not taken, and will not be tried again by itself
    UNCERTAIN = "uncertain"  # nobody knows, and a repetition would be seen: a person decides
    DROPPED = "dropped"  # nothing was sent, on purpose

    @property
    def open(self) -> bool:
        """A sender has to do with it."""
        return self in (EntryState.PENDING, EntryState.SENDING)

    @property
    def decided_by_people(self) -> bool:
        """Nothing more happens to it by itself."""
        return self in (EntryState.FAILED, EntryState.UNCERTAIN)


@dataclass(frozen=True)
class Outgoing:
    """What a handler wants to leave: it does when, and only when, its commit counts."""

    channel: str
    recipient: str
    body: Document
    author: Literal["bot", "person"] = "bot"
    purpose: Literal["reply", "follow_up", "event"] = "reply"

    def to_document(self) -> Document:
        """The form in which a commit keeps it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Entry:
    """An entry as it was read."""

    id: str
    task_id: str
    session_id: str | None
    channel: str
    recipient: str
    author: str
    purpose: str
    body: Document
    state: EntryState
    version: int
    round: int
    created_at: dt.datetime
    opened_at: dt.datetime
    updated_at: dt.datetime
    token: str | None = None
    attempts: int = 0
    reason: Document | None = None
    reference: str | None = None
    receipt: Document | None = None
    sent_at: dt.datetime | None = None

    @classmethod
    def from_document(cls, document: Document) -> "Entry":
        """Read what the collection holds."""
        known = {name: document[name] for name in _ENTRY_FIELDS if name in document}
        return cls(**known | {"id": document["_id"], "state": EntryState(document["state"])})

    @property
    def of_bot(self) -> bool:
        """The bot speaks: not any more once a person does. What is told of it stays true."""
        return self.author == "bot" and self.purpose != "event"


_ENTRY_FIELDS = frozenset(Entry.__dataclass_fields__) - {"id"}


@dataclass(frozen=True)
class OutboxFilter:
    """Which entries a list shows; what is None does not matter. `code` is their reason's."""

    state: EntryState | None = None
    channel: str | None = None
    session_id: str | None = None
    code: str | None = None
    since: dt.datetime | None = None

    def split(self) -> tuple[Document, Document]:
        """What an index finds, and what is left to be compared."""
        asked: Document = {
            "session_id": self.session_id,
            "state": None if self.state is None else self.state.value,
        }
        given = [(name, value) for name, value in asked.items() if value is not None]
        left = dict(given[1:]) | {
            name: value
            for name, value in (("channel", self.channel), ("code", self.code))
            if value is not None
        }
        return dict(given[:1]), left


@dataclass(frozen=True)
class Sent:
    """The recipient's side has taken it, and calls it `reference`."""

    reference: str | None = None


@dataclass(frozen=True)
class Refused:
    """It was not taken, and would not be if tried again."""

    code: str
    detail: str


@dataclass(frozen=True)
class NotNow:
    """It surely was not taken, and may be later; `after_s` where the other side said when.

    `body`, where given, is what to send then in place of the entry's.
    """

    code: str
    detail: str
    after_s: float | None = None
    body: Document | None = None


@dataclass(frozen=True)
class Unknown:
    """It may have been taken."""

    code: str
    detail: str


Outcome = Sent | Refused | NotNow | Unknown


class Channel(Protocol):
    """A way out. `send` makes one attempt and tells what came of it; it raises for bugs only."""

    @property
    def repeats_safely(self) -> bool:
        """Whether the recipient recognises a repetition by the entry's id."""

    def send(self, entry: Entry) -> Outcome:
        """Send an entry."""


class Outbox:
    """Entries from their commit to their end. Raises StoreUnavailable as the task store does."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        settings: Settings,
        sessions: "Sessions",
        contacts: Contacts,
        coordinator: "Coordinator",
        audit: Audit,
    ) -> None:
        self._entries = database["outbox"]
        self._clock = clock
        self._settings = settings
        self._sessions = sessions
        self._contacts = contacts
        self._coordinator = coordinator
        self._audit = audit
        self._closed = threading.Event()

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._entries, "change", "_id version")
        ensure_index(self._entries, "rescue", "state check_at")
        ensure_index(self._entries, "conversation", "session_id listed")
        ensure_index(self._entries, "by_state", "state listed")
        ensure_index(self._entries, "listed", "listed")
        ensure_index(self._entries, "reference", "reference", where={"reference": {"$gt": ""}})
        ensure_index(self._entries, "expiry", "expire_at", expireAfterSeconds=0)

    # -- from a commit to a task ------------------------------------------------------

    def of_message(
        self,
        session: "Session",
        text: str,
        *,
        author: Literal["bot", "person"] = "bot",
        purpose: Literal["reply", "follow_up"] = "reply",
        language: str = "es",
        kind: str = "reply",
        values: Sequence[str] = (),
        about: Document | None = None,
    ) -> list[Outgoing]:
        """What a message to a session's customer makes leave: the message itself where the
        channel has no other way to be answered, and word of it to n8n where it is told.

        A long text becomes several entries. `kind` and `values` fill a template where WhatsApp
        takes nothing else. `about` are further facts for n8n. A follow-up, which answers no
        request, always leaves: by n8n where WhatsApp is not set up, else to the page.
        """
        entries = []
        follow_up = purpose == "follow_up"
        by_phone = not follow_up or self._settings.whatsapp_sends
        if session.channel == "whatsapp" and session.phone and by_phone:
            said = {"kind": kind, "language": language, "values": list(values)}
            entries = [
                Outgoing("whatsapp", session.phone, {"text": part} | said, author, purpose)
                for part in parts(text, TEXT_CHARS)
            ]
        if session.channel == "mercadolibre" and not follow_up:
            # One answer to a question is all that there is; its channel knows it by the session.
            said = {"text": text, "language": language}
            entries = [Outgoing("mercadolibre", session.id, said, author, purpose)]
        if self._settings.n8n_told:
            told = {
                "session_id": session.id,
                "channel": session.channel,
                "phone": session.phone,
                "author": author,
                "text": text,
                "language": language,
            }
            event = {
                "type": "message.created",
                "timestamp": self._clock.now().isoformat(),
                "data": told | (about or {}),
            }
            # Word of a reply stays true; a follow-up that is told to n8n may be sent by it.
            told_as = purpose if follow_up else "event"
            entries.append(Outgoing("n8n", session.id, event, author, told_as))
        if follow_up and not entries:
            local = {"text": text, "kind": kind, "language": language}
            entries.append(Outgoing("local", session.id, local, author, purpose))
        return entries

    def put(
        self, task: Task | str, n: int | str, outgoing: Outgoing, session_id: str | None = None
    ) -> Entry:
        """Commit an effect that is not a session's turn; made once per (task, n). A task of
        earlier, to which it belongs, goes by its id.

        Its insert is the commit point. Sending follows even if this process dies here.
        """
        task_id = task if isinstance(task, str) else task.id
        entry = self._insert(f"{task_id}.{n}", task_id, session_id, outgoing)
        self._submit(entry)
        return entry

    def project(self, session_id: str) -> int:
        """Turn what a session's commits wrote into entries and tasks; repeatable.

        Returns how many there were. What cannot be handed to a sender now stays in the
        session, with all that came after it, for the rescuer.
        """
        while True:
            session = self._sessions.get(session_id)
            for waiting in session.outgoing:
                fields = {name: waiting[name] for name in Outgoing.__dataclass_fields__}
                entry = self._insert(
                    waiting["id"], waiting["task_id"], session_id, Outgoing(**fields)
                )
                if not self._submit(entry):
                    return 0
            # A commit in between leaves it for another turn: nothing of its own is lost.
            if not session.outgoing or self._sessions.projected(session):
                return len(session.outgoing)

    def _insert(
        self, entry_id: str, task_id: str, session_id: str | None, outgoing: Outgoing
    ) -> Entry:
        now = self._clock.now()
        document: Document = {
            "_id": entry_id,
            "task_id": task_id,
            "session_id": session_id,
            **outgoing.to_document(),
            "state": EntryState.PENDING.value,
            "version": 0,
            "round": 0,
            "attempts": 0,
            "listed": new_id(now),
            "created_at": now,
            "opened_at": now,
            "updated_at": now,
            "check_at": now + dt.timedelta(seconds=LOOK_AFTER_S),
        }
        try:
            with store_errors():
                self._entries.insert_one(document)
        except DuplicateKeyError:
            return self.get(entry_id)
        return Entry.from_document(document)

    def _submit(self, entry: Entry) -> bool:
        """Accept the task that sends the entry's present round, once."""
        return not entry.state.open or self._task_of(entry) is not None

    def _task_of(self, entry: Entry) -> Task | None:
        """The task of the entry's round, accepted now if it was not; None if it cannot be."""
        request = Request(
            type=TASK_TYPE,
            payload={"entry_id": entry.id, "round": entry.round},
            capabilities=(f"{entry.channel}_integration",),
            # What is committed is owed: it is not weighed against new work.
            priority=Priority.HIGH,
            caller="outbox",
            idempotency_key=f"{entry.id}/{entry.round}",
            ordering_key=f"out:{entry.channel}:{self._contacts.alias(entry.recipient)}",
        )
        try:
            return self._coordinator.submit(request)[0]
        except StoreUnavailable:
            raise
        except OrchestratorError as error:
            log.warning("outbox.no_sender_yet", entry_id=entry.id, code=error.code)
            return None

    # -- sending ----------------------------------------------------------------------

    def deliver(self, entry_id: str, round: int, channel: Channel | None) -> Entry:
        """Make one attempt at an entry, and record what came of it; for the `deliver` task.

        Without a channel the entry fails: it is switched off. An outcome that cannot be
        recorded is kept, and recorded when MongoDB is back.

        Raises:
            RetryLater: it surely was not taken, or may be repeated.
            NotFound: no such entry: it was erased.
        """
        taken = self._take(entry_id, round, channel)
        if taken.state is not EntryState.SENDING:
            return taken
        if channel is None:
            off = Refused("channel_off", f"{taken.channel} is not set up.")
            return self._record(taken, off, repeats_safely=True)
        # Looked at after the entry was marked: who takes over later sees it marked.
        objection = self._objection(taken)
        if objection is not None:
            return self._ended(taken, EntryState.DROPPED, objection)
        outcome = channel.send(taken)
        return self._record(taken, outcome, repeats_safely=channel.repeats_safely)

    def _take(self, entry_id: str, round: int, channel: Channel | None) -> Entry:
        """The entry marked as being sent by this run; or as it is, where there is nothing to
        send any more."""
        token = new_token()
        while True:
            entry = self.get(entry_id)
            if entry.token == token and entry.state is EntryState.SENDING:
                return entry  # the acknowledgement was lost, the write was not
            if entry.round != round or not entry.state.open:
                return entry
            lost = entry.state is EntryState.SENDING
            if lost and channel is not None and not channel.repeats_safely:
                why = {"code": "sender_lost", "detail": "Its sender died: it may have left."}
                gone = self._change(entry, EntryState.UNCERTAIN, {"reason": why})
                if gone is not None:
                    log.error("outbox.uncertain", entry_id=entry.id, code=why["code"])
                    return gone
                continue
            fields = {"token": token, "attempts": entry.attempts + 1}
            try:
                taken = self._change(entry, EntryState.SENDING, fields)
            except StoreUnavailable:
                # Nothing has left yet, and only this run knows: to give up here would make
                # the entry uncertain if the write arrived.
                if self._closed.wait(0.5):
                    raise
                continue
            if taken is not None:
                return taken

    def _objection(self, entry: Entry) -> Document | None:
        """Why an entry must not leave any more."""
        addresses = {entry.recipient}
        if entry.session_id is not None and entry.of_bot:
            try:
                session = self._sessions.get(entry.session_id)
            except NotFound:
                return {"code": "session_gone", "detail": "Its conversation was erased."}
            # Not yet while the customer waits for one: the bot's last words say so.
            if session.taken_by is not None:
                return {"code": "person_took_over", "detail": "A person has the conversation."}
            addresses.update(session.addresses)
        if entry.purpose == "follow_up" and any(map(self._contacts.opted_out, addresses)):
            return {"code": "opted_out", "detail": "The customer wants no such messages."}
        return None

    def _record(self, entry: Entry, outcome: Outcome, *, repeats_safely: bool) -> Entry:
        if isinstance(outcome, Sent):
            return self._ended(entry, EntryState.SENT, None, reference=outcome.reference)
        reason = {"code": outcome.code, "detail": outcome.detail}
        if isinstance(outcome, Refused):
            return self._ended(entry, EntryState.FAILED, reason)
        if isinstance(outcome, Unknown) and not repeats_safely:
            return self._ended(entry, EntryState.UNCERTAIN, reason)
        patience = dt.timedelta(seconds=self._settings.delivery_patience_s)
        if self._clock.now() - entry.opened_at > patience:
            return self._ended(entry, EntryState.FAILED, reason)
        again = {"body": outcome.body} if isinstance(outcome, NotNow) and outcome.body else {}
        self._ended(entry, EntryState.PENDING, reason, **again)
        after_s = outcome.after_s if isinstance(outcome, NotNow) else None
        raise RetryLater(outcome.detail, after_s=after_s, reason=outcome.code)

    def _ended(
        self, entry: Entry, state: EntryState, reason: Document | None, **more: Any
    ) -> Entry:
        """Record how an attempt ended, however long MongoDB is away."""
        now = self._clock.now()
        fields: Document = {"reason": reason} | more
        if state is EntryState.SENT:
            fields["sent_at"] = now
        token = entry.token
        while True:
            try:
                done = self._change(entry, state, fields)
                if done is None:
                    # Given up for dead meanwhile, or the acknowledgement was lost. What this
                    # run knows still counts as long as nobody else has taken the entry.
                    entry = self.get(entry.id)
                    known = entry.token == token and entry.state in (
                        EntryState.SENDING,
                        EntryState.UNCERTAIN,
                    )
                    if known:
                        continue
                    return entry
            except StoreUnavailable:
                if self._closed.wait(0.5):
                    raise
                continue
            level = log.info if state in (EntryState.SENT, EntryState.PENDING) else log.warning
            level(
                f"outbox.{state}",
                entry_id=entry.id,
                channel=entry.channel,
                attempts=entry.attempts,
                code=(reason or {}).get("code"),
            )
            return done

    # -- what the other side tells ------------------------------------------------------

    def receipt(
        self,
        status: str,
        at: dt.datetime,
        *,
        reference: str,
        entry_id: str | None = None,
        reason: Document | None = None,
    ) -> bool:
        """Record what the recipient's side tells of a message; False if it is not ours.

        Statuses may come late, twice and in any order: the highest of sent, delivered, read
        counts, and failed is final. A message that was uncertain is known by its receipt.
        """
        while True:
            entry = self._told_of(entry_id, reference)
            if entry is None:
                return False
            known = entry.receipt or {"status": None, "times": {}}
            now_at = -1 if known["status"] is None else RECEIPTS.index(known["status"])
            if known["status"] == "failed" or status in known["times"]:
                return True
            further = RECEIPTS.index(status) > now_at
            told = {
                "status": status if further else known["status"],
                "times": known["times"] | {status: at},
            }
            fields: Document = {"receipt": told, "reference": reference}
            state = EntryState.SENT
            if told["status"] == "failed":
                state = EntryState.FAILED
                fields["reason"] = reason or {"code": "failed", "detail": "It was not delivered."}
            elif entry.state is not EntryState.SENT:
                fields |= {"reason": None, "sent_at": at}
            if self._change(entry, state, fields) is not None:
                if state is EntryState.FAILED:
                    code = fields["reason"]["code"]
                    log.warning("outbox.failed_later", entry_id=entry.id, code=code)
                return True

    def _told_of(self, entry_id: str | None, reference: str) -> Entry | None:
        with store_errors():
            document = None
            if entry_id is not None:
                document = self._entries.find_one({"_id": entry_id})
            if document is None:
                document = self._entries.find_one({"reference": reference})
        return None if document is None else Entry.from_document(document)

    # -- people -----------------------------------------------------------------------

    def get(self, entry_id: str) -> Entry:
        """Read an entry.

        Raises:
            NotFound: no such entry.
        """
        with store_errors():
            document = self._entries.find_one({"_id": entry_id})
        if document is None:
            raise NotFound("No such outgoing entry")
        return Entry.from_document(document)

    def drop_pending(self, session_id: str) -> int:
        """Drop what the bot has to say in a session and has not begun to send.

        For a person who takes over, after the owner has changed: nothing is committed by the
        bot then, and what is being sent already looks at the owner once more.
        """
        self.project(session_id)
        why = {"code": "person_took_over", "detail": "A person has the conversation."}
        dropped = 0
        query = {"session_id": session_id, "listed": {"$gt": ""}}
        with store_errors():
            found = [Entry.from_document(document) for document in self._entries.find(query)]
        for entry in found:
            if entry.state is EntryState.PENDING and entry.of_bot:
                dropped += self._change(entry, EntryState.DROPPED, {"reason": why}) is not None
        return dropped

    def page(
        self, wanted: "OutboxFilter", limit: int, position: str | None = None
    ) -> tuple[list[Entry], str | None]:
        """Entries, newest first, and where the next page begins, None at the end.

        Raises:
            ValueError: the position is none that was given here.
        """
        equal, left = wanted.split()

        def fits(document: Document) -> bool:
            told = document | {"code": (document.get("reason") or {}).get("code")}
            return all(told.get(name) == value for name, value in left.items())

        with store_errors():
            page = newest_first(
                self._entries,
                equal,
                _NEWEST,
                now=self._clock.now(),
                limit=limit,
                position=position,
                since=wanted.since,
                wanted=fits if left else None,
            )
        return [Entry.from_document(found) for found in page.documents], page.next

    def resolve(self, entry_id: str, decision: Decision, *, by: str) -> Entry:
        """Have a failed or uncertain entry sent again, or give it up: a person's decision.

        Raises:
            NotFound: no such entry.
            Conflict: it is in another state.
        """
        with self._audit.act(by, f"outbox.{decision}", entry_id):
            return self._resolve(entry_id, decision)

    def resolve_all(
        self, wanted: "OutboxFilter", decision: Decision, limit: int, *, by: str
    ) -> Document:
        """Decide those failed and uncertain entries that a filter finds, the newest `limit` of
        them, the oldest first; returns {done, more}: `more` where the limit ended it."""
        asked = {name: str(value) for name, value in vars(wanted).items() if value is not None}
        with self._audit.act(by, f"outbox.{decision}_all", None, **asked, limit=limit) as outcome:
            outcome |= {"done": 0, "more": False}
            found: list[str] = []
            position: str | None = None
            while len(found) <= limit:
                page, position = self.page(wanted, 200, position)
                found += [entry.id for entry in page if entry.state.decided_by_people]
                if position is None:
                    break
            outcome["more"] = len(found) > limit
            for entry_id in sorted(found[:limit]):
                with suppress(Conflict, NotFound):
                    self._resolve(entry_id, decision)
                    outcome["done"] += 1
        return dict(outcome)

    def _resolve(self, entry_id: str, decision: Decision) -> Entry:
        again = decision == "send_again"
        state = EntryState.PENDING if again else EntryState.DROPPED
        while True:
            entry = self.get(entry_id)
            if not entry.state.decided_by_people:
                raise Conflict(
                    "Only failed and uncertain entries are decided by people.",
                    state=entry.state.value,
                )
            fields: Document = {}
            if again:
                fields = {"round": entry.round + 1, "opened_at": self._clock.now()}
            done = self._change(entry, state, fields)
            if done is not None:
                log.info("outbox.resolved", entry_id=entry.id, state=state.value)
                if again:
                    self._submit(done)
                return done

    # -- the rescuer ------------------------------------------------------------------

    def rescue(self, limit: int) -> int:
        """Do what dead processes left undone, at most so many of each kind; returns how many.

        Commits that were not turned into entries, entries without a task, and entries whose
        task came to an end without them.
        """
        now = self._clock.now()
        unprojected = self._sessions.unprojected(now - dt.timedelta(seconds=LOOK_AFTER_S), limit)
        mended = each("outgoing", unprojected, self.project, pseudonym)
        for state in (EntryState.PENDING, EntryState.SENDING):
            due = {"state": state.value, "check_at": earlier_than(now)}
            with store_errors():
                found = list(self._entries.find(due).limit(limit))
            mended += each(
                "entries",
                found,
                lambda document: self._look_at(Entry.from_document(document)),
                lambda document: str(document["_id"]),
            )
        return mended

    def _look_at(self, entry: Entry) -> bool:
        task = self._task_of(entry)
        if task is not None and task.state.final:
            # Its task was cancelled, or is a dead letter: nobody would send it any more.
            error = task.error or {"code": "task_ended", "detail": "Its task ended without it."}
            reason = {"code": error["code"], "detail": error.get("detail", "")}
            # A person may know whether it arrived; where it was not begun, it did not.
            begun = entry.state is EntryState.SENDING
            state = EntryState.UNCERTAIN if begun else EntryState.FAILED
            return self._change(entry, state, {"reason": reason}) is not None
        later = self._clock.now() + dt.timedelta(seconds=LOOK_AGAIN_S)
        with store_errors():
            self._entries.update_one(
                {"_id": entry.id, "version": entry.version}, {"$set": {"check_at": later}}
            )
        return False

    # -- the compare-and-set ----------------------------------------------------------

    def _change(self, entry: Entry, state: EntryState, fields: Document) -> Entry | None:
        """The one compare-and-set: (id, version) -> version + 1; None when it has moved on."""
        now = self._clock.now()
        written = fields | {"state": state.value, "updated_at": now}
        gone = {}
        if state.open:
            written["check_at"] = now + dt.timedelta(seconds=LOOK_AFTER_S)
            gone["expire_at"] = ""
        else:
            gone["check_at"] = ""
            if state is EntryState.UNCERTAIN:
                gone["expire_at"] = ""
            else:
                kept = dt.timedelta(days=self._settings.task_retention_days)
                written["expire_at"] = now + kept
        with store_errors():
            matched = self._entries.update_one(
                {"_id": entry.id, "version": entry.version},
                {"$set": written, "$inc": {"version": 1}, "$unset": gone},
            ).matched_count
        if not matched:
            return None
        known = {name: value for name, value in written.items() if name in _ENTRY_FIELDS}
        return replace(entry, **known | {"state": state, "version": entry.version + 1})

    def close(self) -> None:
        """Give up waiting for MongoDB: the process ends."""
        self._closed.set()


def parts(text: str, limit: int) -> list[str]:
    """A text in parts of at most `limit` characters, as UTF-16 counts them, cut where a reader
    would pause. Only blanks at the cuts are lost."""
    found: list[str] = []
    text = text.strip()
    while True:
        room = _fitting(text, limit)
        if room >= len(text):
            return [*found, text] if text else found
        # The widest pause in the second half, if there is one.
        for pause in ("\n\n", "\n", ". ", "? ", "! ", " "):
            cut = text.rfind(pause, room // 2, room) + len(pause)
            if cut > room // 2:
                break
        else:
            cut = room
        found.append(text[:cut].rstrip())
        text = text[cut:].lstrip()


def _fitting(text: str, limit: int) -> int:
    """How many characters of a text fit into so many of UTF-16."""
    units = 0
    for n, char in enumerate(text):
        units += 2 if ord(char) > 0xFFFF else 1
        if units > limit:
            return n
    return len(text)


def documents(task_id: str, outgoing: Iterable[Outgoing]) -> list[Document]:
    """What a commit keeps of its outgoing entries, until they are projected."""
    return [
        {"id": f"{task_id}.{n}", "task_id": task_id} | each.to_document()
        for n, each in enumerate(outgoing)
    ]
