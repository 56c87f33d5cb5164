"""Sessions: a conversation's messages, its turns, its owner, and the state that agents share.

Keeps secret how a turn takes effect exactly once and how what was said becomes numbered
messages. All that a turn changes (context, reply, what it answers) is one document, and every
change of it is one compare-and-set on its version (`_advance`): a second run of a task finds
itself committed; a run that read an older version, or whose session a person took over
meanwhile, changes nothing.

A turn answers a set of messages: that of its task and, with `on_busy` "coalesce", those that
wait behind it. `begin` freezes the set in the session, for this run and every later one of the
task, under a mark of (task, fence): a run that was given up for dead finds another mark and can
neither freeze nor commit. The tasks of the others finish with the reply that covered them.

Collection `sessions`, one document per conversation:

    _id             the session id, given by the client or made here
    caller          who opened it; sessions of one caller are not reached by another
    channel         "web", "whatsapp", ...
    phone           the customer's, or null
    open_phone      caller and phone while open and trusted: unique, so that a phone has one
    customer        caller and phone, as soon as they were trusted; stays when it is closed
    status          "open" | "closed": a closed one is opened again by its id only
    owner           "bot" | "human": who answers
    taken_by        the person who has it, or null
    waiting_since   since when the customer waits for a person, or null
    on_busy         "coalesce" | "enqueue" | "reject", or null: as the settings say
    version         rises with each change of the context, of the owner and of what was said
    context         {shared: {...}, agents: {agent id: {...}}}
    seq             number of the last task that a reply covered
    fence, mark     of the run that may commit: its task's fence, and "{task id}/{fence}"
    turn            {task_id, covers: [task ids], through: seq} of the last turn that began
    committed       {task_id, first, through, reply} of the last turn that ended
    said            {source, role, at, task_id, text, facts}: our side's last message, until the
                    next change has seen it among the messages; a reply's text is in `committed`
    noted           {n, seq}: up to here everything is among the messages
    turns           [{task_id, seq, at, intent}], the newest 50
    outgoing        [{id, task_id, ...}] committed, and not in the outbox yet
    unsent_at       time of the last change with such entries; gone when they are in the outbox
    opened          rises with the time of creation, unique: what lists are read by
    created_at, updated_at
    active_at       as updated_at, but for what the desk says or notes by itself

Collection `messages`, one document per message, never changed:

    _id             "{session id}:{n}"
    session_id, n   numbered from 1 without gaps, customers' in the order of acceptance
    source          unique: "{task id}" of a customer's, "{task id}.reply", "person.{id}", or
                    what `speak` was told
    role            "customer" | "assistant" | "person"
    text, at
    task_id         the task that brought a customer's message, or whose turn it answers, or null
    facts           what front ends show beside a reply (intent, actions, quote), {by: person}, or
                    {medium: what a customer sent that is not words}

Messages are a projection of accepted tasks and of `said`, repeated whenever somebody reads them
and before every change of the session, so that whoever dies leaves none out; the unique
source lets none in twice. Collection `contexts`, the versions before the present one:
{_id "{session id}:{version}", session_id, version, context, at, expire_at}.

Written by `Sessions`; kept for `SESSION_RETENTION_DAYS` after the last change, or until a
customer's data is erased.
"""

import contextlib
import datetime as dt
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import bson
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.errors import (
    NotFound,
    SessionClosed,
    SessionNotTaken,
    SessionTaken,
    StaleAttempt,
    StaleContext,
    TaskError,
)
from orchestrator.outbox import Outgoing, documents
from orchestrator.pages import Page, newest_first
from orchestrator.settings import OnBusy, Settings
from orchestrator.tasks import (
    BY_ID,
    State,
    Task,
    TaskStore,
    earlier_than,
    ensure_index,
    new_id,
    store_errors,
)

Document = dict[str, Any]
Role = Literal["customer", "assistant", "person"]
BOT, HUMAN = "bot", "human"
MAX_MESSAGE_CHARS = 10_000
OPEN, CLOSED = "open", "closed"
TURNS_KEPT = 50
# Of one turn: more than a burst has, and no more text than one message may have.
COVERED_MESSAGES = 50
COVERED_CHARS = 10_000
MAX_CONTEXT_BYTES = 64 * 1024
# A person and a turn that meet in one session try again; more often, something is wrong.
TRIES = 20
_BY_OPENING = replace(BY_ID, field="opened")
# What lists are filtered by with an index; the first that is given leads, the rest is compared.
_LISTED_BY = ("caller", "owner", "status", "channel")


def ordering_key(session_id: str) -> str:
    """The ordering key of a session's messages: one at a time is answered, in order."""
    return f"session:{session_id}"


@dataclass(frozen=True)
class Session:
    """A session as it was read."""

    id: str
    caller: str
    channel: str
    phone: str | None
    customer: str | None
    status: str
    owner: str
    taken_by: str | None
    waiting_since: dt.datetime | None
    on_busy: OnBusy | None
    version: int
    context: Document
    seq: int
    fence: int
    mark: str
    turn: Document | None
    committed: Document | None
    said: Document | None
    noted: Document
    created_at: dt.datetime
    updated_at: dt.datetime
    active_at: dt.datetime
    intents: tuple[str, ...] = ()  # of its turns, the newest last
    outgoing: tuple[Document, ...] = ()

    @classmethod
    def from_document(cls, document: Document) -> "Session":
        """Read what the collection holds."""
        known: Document = {name: document.get(name) for name in _SESSION_FIELDS}
        known["outgoing"] = tuple(known["outgoing"] or ())
        turns = document.get("turns") or ()
        known["intents"] = tuple(turn["intent"] for turn in turns if turn["intent"])
        known["active_at"] = document.get("active_at", document.get("updated_at"))
        return cls(id=document["_id"], **known)

    @property
    def address(self) -> str:
        """What `Contacts` know the customer by: the phone, or this conversation where there is
        none."""
        return self.phone or f"session:{self.id}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that the customer may be known by there: a phone may have come later."""
        return (f"session:{self.id}",) if self.phone is None else (self.phone, f"session:{self.id}")

    def of_agent(self, agent_id: str) -> Document:
        """What this agent keeps for itself in the session."""
        kept: Document = self.context["agents"].get(agent_id, {})
        return kept

    def reply_to(self, task: Task) -> Any | None:
        """The reply, if the last turn that ended covers this task."""
        if self.committed is None:
            return None
        covered = self.committed["first"] <= (task.seq or 0) <= self.committed["through"]
        return self.committed["reply"] if covered else None


_SESSION_FIELDS = frozenset(Session.__dataclass_fields__) - {"id"}


@dataclass(frozen=True)
class Message:
    """Something that was said in a session; numbered from 1, for good."""

    session_id: str
    n: int
    role: Role
    text: str
    at: dt.datetime
    task_id: str | None
    facts: Document


@dataclass(frozen=True)
class Burst:
    """What one run of a task answers, frozen: its message and those understood with it.

    `messages` are the tasks whose messages it covers, the turn's own first; `through` is the
    number of the last. `reply` is what was answered already, in an earlier run or by the turn
    that covered this task; in the latter case there are no messages.
    """

    session: Session
    task: Task
    messages: tuple[Task, ...] = ()
    through: int = 0
    reply: Any | None = None

    @property
    def text(self) -> str:
        """All that the customer said, a line for each message."""
        return "\n".join(text for task in self.messages if (text := _text_of(task)))


@dataclass(frozen=True)
class Writer:
    """An agent as a writer of contexts: its own namespace, and the shared keys it declared."""

    agent_id: str
    shares: frozenset[str]

    def changes(self, own: Document | None, shared: Document | None) -> Document:
        """The fields to set: `own` replaces the namespace, `shared` is merged key by key.

        Raises:
            TaskError: `context_not_yours`, it shares a key that it has not declared.
        """
        foreign = sorted(set(shared or {}) - self.shares)
        if foreign:
            raise TaskError(
                "context_not_yours",
                "An agent writes its own namespace and the shared keys that it declares.",
                agent=self.agent_id,
                keys=foreign,
            )
        fields = {} if own is None else {f"context.agents.{self.agent_id}": own}
        return fields | {f"context.shared.{name}": value for name, value in (shared or {}).items()}


@dataclass(frozen=True)
class _Change:
    """What one compare-and-set does to a session, beside raising its version."""

    fields: Document
    said: Document | None = None
    push: Document = field(default_factory=dict)
    outgoing: Sequence[Document] = ()
    unset: tuple[str, ...] = ()
    activity: bool = True  # somebody did something: not what the desk does by itself


class Sessions:
    """Open, read and change sessions. Raises StoreUnavailable as the task store does."""

    def __init__(
        self, database: Database[Document], clock: Clock, store: TaskStore, settings: Settings
    ) -> None:
        self._sessions = database["sessions"]
        self._messages = database["messages"]
        self._contexts = database["contexts"]
        self._clock = clock
        self._store = store
        self._settings = settings

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._sessions, "commit", "_id version mark")
        ensure_index(
            self._sessions,
            "open_phone",
            "open_phone",
            unique=True,
            where={"open_phone": {"$gt": ""}},
        )
        ensure_index(self._sessions, "customer", "customer opened")
        ensure_index(self._sessions, "idle", "updated_at")
        ensure_index(self._sessions, "unsent", "unsent_at")
        ensure_index(self._sessions, "waiting", "owner waiting_since")
        for equal in _LISTED_BY:
            ensure_index(self._sessions, f"list_{equal}", f"{equal} opened")
        ensure_index(self._sessions, "list", "opened")
        ensure_index(self._messages, "number", "session_id n")
        ensure_index(self._messages, "source", "source", unique=True)
        ensure_index(self._contexts, "session", "session_id")
        ensure_index(self._contexts, "expiry", "expire_at", expireAfterSeconds=0)

    # -- joining ---------------------------------------------------------------------

    def open(
        self, session_id: str | None, phone: str | None, *, caller: str, channel: str, trusted: bool
    ) -> Session:
        """The session that a message belongs to, made if there is none.

        A trusted phone (a signed channel, a client's key, loopback) goes on in its open
        session whatever session id came. A known session id that comes with another phone, or
        from another caller, gets a new session: nobody reads another customer's conversation.
        A closed session that is named is open again.
        """
        open_phone = f"{caller}|{phone}" if phone and trusted else None
        with store_errors():
            if open_phone is not None:
                known = self._sessions.find_one({"open_phone": open_phone})
                if known is not None:
                    return Session.from_document(known)
            if session_id is not None:
                known = self._sessions.find_one({"_id": session_id})
                if known is not None and _belongs(known, caller, phone):
                    return self._joined(Session.from_document(known), phone, open_phone)
                if known is not None:
                    session_id = None
            return self._create(session_id, phone, open_phone, caller, channel)

    def _joined(self, session: Session, phone: str | None, open_phone: str | None) -> Session:
        """The session, open, with the phone that came for the first time: it is that customer's."""
        new_phone = phone is not None and session.phone != phone
        if not new_phone and session.status == OPEN:
            return session
        fields: Document = {"status": OPEN, "phone": phone or session.phone}
        if open_phone is not None:
            fields |= {"open_phone": open_phone, "customer": open_phone}
        try:
            if self._advance(session, _Change(fields)) is not None:
                return self.get(session.id)
        except DuplicateKeyError:
            # The phone got an open session meanwhile: that is where it goes on.
            found = self._sessions.find_one({"open_phone": open_phone})
            if found is not None:
                return Session.from_document(found)
        # A turn was committed meanwhile, or another phone was first: look again.
        known = self.get(session.id)
        if phone is None or known.phone in (None, phone):
            return self._joined(known, phone, open_phone)
        return self._create(None, phone, open_phone, session.caller, session.channel)

    def _create(
        self,
        session_id: str | None,
        phone: str | None,
        open_phone: str | None,
        caller: str,
        channel: str,
    ) -> Session:
        now = self._clock.now()
        document: Document = {
            "_id": session_id or secrets.token_hex(12),
            "caller": caller,
            "channel": channel,
            "phone": phone,
            "customer": open_phone,
            "status": OPEN,
            "owner": BOT,
            "taken_by": None,
            "waiting_since": None,
            "on_busy": None,
            "version": 0,
            "context": {"shared": {}, "agents": {}},
            "seq": 0,
            "fence": 0,
            "mark": "",
            "turn": None,
            "committed": None,
            "said": None,
            "noted": {"n": 0, "seq": 0},
            "turns": [],
            "opened": new_id(now),
            "created_at": now,
            "updated_at": now,
            "active_at": now,
        }
        try:
            self._sessions.insert_one(
                document if open_phone is None else document | {"open_phone": open_phone}
            )
        except DuplicateKeyError:
            # Another request of the same customer was first: theirs is the session.
            known = None
            if open_phone is not None:
                known = self._sessions.find_one({"open_phone": open_phone})
            if known is None:
                known = self._sessions.find_one({"_id": document["_id"]})
            if known is not None and _belongs(known, caller, phone):
                return Session.from_document(known)
            if known is not None or open_phone is None:
                return self._create(None, phone, open_phone, caller, channel)
            # SecantusDB 0.6 lets no insert have the phone of a session that was closed since;
            # an update may.
            self._create(document["_id"], None, None, caller, channel)
            return self._joined(self.get(document["_id"]), phone, open_phone)
        return Session.from_document(document)

    # -- reading ---------------------------------------------------------------------

    def get(self, session_id: str) -> Session:
        """Read a session.

        Raises:
            NotFound: no such session.
        """
        with store_errors():
            document = self._sessions.find_one({"_id": session_id})
        if document is None:
            raise NotFound("No such session")
        return Session.from_document(document)

    def messages(self, session: Session, *, after: int = 0, limit: int = 100) -> list[Message]:
        """What was said in a session as it was read, in order: up to `limit` messages with
        numbers above `after`. What was accepted before the call is among them."""
        self.project(session)
        with store_errors():
            found = list(
                self._messages.find(
                    # Numbers have no gaps: a limit on a sort would read all that follow.
                    {"session_id": session.id, "n": {"$gt": after, "$lt": after + limit + 1}}
                )
            )
            if not found:
                # The oldest ones are gone, or there is nothing more.
                found = list(
                    self._messages.find({"session_id": session.id, "n": {"$gt": after}})
                    .sort("n", 1)
                    .limit(limit)
                )
        return sorted((_message(document) for document in found), key=lambda message: message.n)

    def context_at(self, session: Session, version: int) -> Document:
        """{version, context, at} of a session as it was read, or of an older version of it.

        Raises:
            NotFound: there is no such version, or it is no longer kept.
        """
        if version == session.version:
            return {"version": version, "context": session.context, "at": session.updated_at}
        with store_errors():
            kept = self._contexts.find_one({"_id": f"{session.id}:{version}"})
        if kept is None:
            raise NotFound("No such version of the context, or it is no longer kept")
        return {name: kept[name] for name in ("version", "context", "at")}

    def listed(
        self,
        *,
        limit: int,
        position: str | None = None,
        caller: str | None = None,
        owner: str | None = None,
        status: str | None = None,
        channel: str | None = None,
    ) -> tuple[list[Session], str | None]:
        """Sessions, the newest first, and the position of the next page, if there is more.

        Raises:
            ValueError: the position is none of this list.
        """
        asked = {"caller": caller, "owner": owner, "status": status, "channel": channel}
        given = {name: value for name, value in asked.items() if value is not None}
        leading = next((name for name in _LISTED_BY if name in given), None)
        rest = {name: value for name, value in given.items() if name != leading}
        with store_errors():
            page: Page = newest_first(
                self._sessions,
                {} if leading is None else {leading: given[leading]},
                _BY_OPENING,
                now=self._clock.now(),
                limit=limit,
                position=position,
                wanted=(lambda d: all(d[name] == value for name, value in rest.items()))
                if rest
                else None,
            )
        return [Session.from_document(document) for document in page.documents], page.next

    def waiting(self, limit: int) -> list[Session]:
        """Sessions whose customer waits for a person, the longest wait first."""
        always = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        with store_errors():
            # The sort reads them all, and they are few: each is a customer who waits.
            found = self._sessions.find({"owner": HUMAN, "waiting_since": {"$gt": always}})
            longest = found.sort("waiting_since", 1).limit(limit)
            return [Session.from_document(document) for document in longest]

    def may_have_answered(self, task: Task) -> bool:
        """Whether a turn of this task has been committed, or that can no longer be told."""
        if task.session_id is None or task.key is None:
            return False
        with store_errors():
            known = self._sessions.find_one({"_id": task.session_id}, {"turns": 1})
        turns = known["turns"] if known else []
        # Turns rise in their numbers; those before the first that is kept are forgotten.
        forgotten = len(turns) == TURNS_KEPT and (task.seq or 0) < turns[0]["seq"]
        return forgotten or any(turn["task_id"] == task.id for turn in turns)

    def unprojected(self, before: dt.datetime, limit: int) -> list[str]:
        """Sessions whose last change with outgoing entries was before a time, and that still
        hold them."""
        with store_errors():
            found = self._sessions.find({"unsent_at": earlier_than(before)}, {"_id": 1}).limit(
                limit
            )
            return [document["_id"] for document in found]

    def projected(self, session: Session) -> bool:
        """Forget the outgoing entries of a session as it was read: they are in the outbox.

        False where something was committed since; then nothing is forgotten.
        """
        with store_errors():
            return bool(
                self._sessions.update_one(
                    {"_id": session.id, "version": session.version},
                    {"$unset": {"outgoing": "", "unsent_at": ""}},
                ).matched_count
            )

    def let_go(self, limit: int) -> int:
        """Remove sessions that were not touched for as long as the settings say, with their
        messages and contexts, at most so many; returns how many.

        Those go first: a session that is cut short here is found again.
        """
        kept = dt.timedelta(days=self._settings.session_retention_days)
        old = {"updated_at": earlier_than(self._clock.now() - kept)}
        gone = 0
        with store_errors():
            for found in list(self._sessions.find(old, {"version": 1}).limit(limit)):
                for kept_of in (self._messages, self._contexts):
                    kept_of.delete_many({"session_id": found["_id"]})
                # One that was touched meanwhile stays, without what was said a year ago.
                gone += self._sessions.delete_one(
                    {"_id": found["_id"], "version": found["version"]}
                ).deleted_count
        return gone

    def earlier_of(self, session: Session) -> Session | None:
        """The customer's session before this one; None where the customer is not known for sure.

        Only what a trusted phone has said counts: who merely claims a number learns nothing.
        """
        if session.customer is None:
            return None
        with store_errors():
            found = self._sessions.find({"customer": session.customer}).sort("opened", -1).limit(2)
            known = [Session.from_document(document) for document in found]
        return next((each for each in known if each.id != session.id), None)

    def many(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """Session id -> session; those that are not there are left out."""
        with store_errors():
            found = self._sessions.find({"_id": {"$in": list(session_ids)}})
            return {document["_id"]: Session.from_document(document) for document in found}

    def touched_between(
        self, since: dt.datetime, until: dt.datetime, limit: int
    ) -> list[tuple[str, dt.datetime]]:
        """Id and time of the last change of sessions that were last changed in a stretch of
        time, the longest ago first, `limit` of them."""
        with store_errors():
            found = self._sessions.find(
                {"updated_at": {"$gte": since, "$lt": until}}, {"updated_at": 1}
            )
            ordered = found.sort("updated_at", 1).limit(limit)
            return [(document["_id"], document["updated_at"]) for document in ordered]

    def silent_between(self, since: dt.datetime, until: dt.datetime, limit: int) -> list[Session]:
        """Sessions last touched in a stretch of time, the longest silence first."""
        with store_errors():
            found = self._sessions.find({"updated_at": {"$gte": since, "$lt": until}})
            return [
                Session.from_document(document)
                for document in found.sort("updated_at", 1).limit(limit)
            ]

    def last_touched(self, since: dt.datetime, limit: int) -> list[str]:
        """Sessions that were changed since a time, the last one first, `limit` of them."""
        with store_errors():
            found = self._sessions.find({"updated_at": {"$gte": since}}, {"updated_at": 1})
            ordered = found.sort("updated_at", -1).limit(limit)
            return [document["_id"] for document in ordered]

    # -- a turn ----------------------------------------------------------------------

    def begin(self, session_id: str, task: Task) -> Burst:
        """Freeze what a task's run answers, before anything is worked out.

        The same set comes back however often the task is run. With `reply` set there is
        nothing left to do: the handler returns it.

        Raises:
            NotFound: no such session.
            StaleAttempt: a later run of the task has begun; this one was given up for dead.
            StaleContext: the session keeps changing; run again.
            TaskError: `overtaken`, later messages have been answered already.
        """
        for _ in range(TRIES):
            session = self.get(session_id)
            reply = session.reply_to(task)
            if reply is not None:
                self.project(session)
                return Burst(session, task, self._answered_by(session, task), reply=reply)
            if session.seq >= (task.seq or 0):
                raise TaskError("overtaken", "Later messages of this session were answered.")
            turn = session.turn
            if turn is not None and turn["task_id"] == task.id:
                if session.fence > task.fence:
                    raise StaleAttempt(task_id=task.id, fence=task.fence)
                messages = self._answered_by(session, task)
                through = turn["through"]
            else:
                messages = self._together(session, task)
                through = messages[-1].seq or 0
            if self._mark(session, task, messages, through):
                return Burst(session, task, messages, through)
        raise StaleContext(session_version=session.version, owner=session.owner)

    def _answered_by(self, session: Session, task: Task) -> tuple[Task, ...]:
        """What the turn of this task has answered; nothing where another's turn covered it."""
        turn = session.turn
        if turn is None or turn["task_id"] != task.id:
            return ()
        known = self._store.many(turn["covers"])
        return tuple(known[id] for id in turn["covers"] if id in known)

    def _together(self, session: Session, task: Task) -> tuple[Task, ...]:
        """The task and those behind it that are understood with it."""
        covered, chars = [task], len(_text_of(task) or "")
        if self.on_busy(session) != "coalesce" or not chars:
            return tuple(covered)
        for later in self._store.of_key(ordering_key(session.id), task.seq or 0, COVERED_MESSAGES):
            if later.state.final:
                continue  # cancelled while it waited
            text = _text_of(later)
            chars += len(text or "") + 1
            together = text and later.type == task.type and later.state is State.BLOCKED
            if not together or chars > COVERED_CHARS or len(covered) == COVERED_MESSAGES:
                break
            covered.append(later)
        return tuple(covered)

    def _mark(self, session: Session, task: Task, messages: tuple[Task, ...], through: int) -> bool:
        """Let this run, and no other, commit; False where the session has changed."""
        if session.mark == _mark_of(task):
            return True
        covers = [message.id for message in messages]
        marked = {
            "mark": _mark_of(task),
            "fence": task.fence,
            "turn": {"task_id": task.id, "covers": covers, "through": through},
        }
        with store_errors():
            written = self._sessions.update_one(
                {"_id": session.id, "version": session.version, "mark": session.mark},
                {"$set": marked},
            )
        return bool(written.matched_count)

    def commit(
        self,
        burst: Burst,
        *,
        writer: Writer,
        reply: Document,
        own: Document | None = None,
        shared: Document | None = None,
        intent: str | None = None,
        hand_over: bool = False,
        outgoing: Sequence[Outgoing] = (),
    ) -> Any:
        """The commit point of a turn: all of it takes effect, once, or none of it.

        `own` replaces what the agent keeps for itself, `shared` is merged into what all agents
        see. `reply["text"]` is what the customer is told, nothing where it is empty; the rest
        of the reply are facts beside it. With `hand_over` a person has the session from here
        on. `outgoing` leaves if, and only if, this counts (call `Outbox.project` after it: the
        rescuer does, if nobody can). Returns the reply that stands: the one given, or that of
        an earlier run.

        Raises:
            StaleContext: the session has changed since it was read, or a person has it and the
                reply has a text; work the turn out again.
            TaskError: `context_not_yours`, or `context_too_large`.
        """
        session, task = burst.session, burst.task
        silent = not reply["text"]
        if session.owner != BOT and not silent:
            raise StaleContext(session_version=session.version, owner=session.owner)
        now = self._clock.now()
        fields = writer.changes(own, shared) | {
            "seq": burst.through,
            "committed": {
                "task_id": task.id,
                "first": task.seq,
                "through": burst.through,
                "reply": reply,
            },
        }
        self._check_size(session, own, shared)
        if session.owner == HUMAN or hand_over:
            fields["owner"] = HUMAN
            fields["waiting_since"] = session.waiting_since or (
                task.created_at if session.owner == HUMAN else now
            )
        said = {
            "source": f"{task.id}.reply",
            "role": "assistant",
            "at": now,
            "task_id": task.id,
        }
        entry = {"task_id": task.id, "seq": burst.through, "at": now, "intent": intent}
        change = _Change(
            fields,
            said=None if silent else said,
            push={"turns": {"$each": [entry], "$slice": -TURNS_KEPT}},
            outgoing=documents(task.id, outgoing),
        )
        noted = self._advance(session, change, mark=_mark_of(task), at=now)
        if noted is not None:
            if not silent:
                self._note(session.id, noted["n"], _with_reply(said, reply))
            return reply
        # Lost, or done with a lost acknowledgement: the document tells.
        known = self.get(session.id)
        standing = known.reply_to(task)
        if standing is None:
            raise StaleContext(session_version=known.version, owner=known.owner)
        self.project(known)
        return standing

    def update(
        self,
        session: Session,
        writer: Writer,
        *,
        own: Document | None = None,
        shared: Document | None = None,
    ) -> Session:
        """Write an agent's own namespace and the shared keys that it declared, outside a turn.

        Raises:
            StaleContext: the session has changed since it was read.
            TaskError: `context_not_yours`, or `context_too_large`.
        """
        self._check_size(session, own, shared)
        noted = _Change(writer.changes(own, shared), activity=False)
        if self._advance(session, noted) is None:
            raise StaleContext(session_version=session.version, owner=session.owner)
        return self.get(session.id)

    def speak(
        self,
        session: Session,
        text: str,
        *,
        source: str,
        task_id: str,
        facts: Document,
        outgoing: Sequence[Outgoing] = (),
        changes: Document | None = None,
        hand_over: bool = False,
        activity: bool = True,
    ) -> dt.datetime:
        """Say something by the bot that answers nothing; the commit point of what leaves with it.

        Once for each `source`, which must be unique among messages. `outgoing` leaves if this
        counts (call `Outbox.project`), and `changes`, a writer's, take effect with it. With
        `hand_over` a person has the session from here on. Without `activity` the customer's
        silence goes on (`active_at`). Returns when it was said.

        Raises:
            StaleContext: the session has changed since it was read, or is not the bot's.
        """
        said_at = self.spoken_at(session, source)
        if said_at is not None:
            return said_at
        if session.owner != BOT or session.status == CLOSED:
            raise StaleContext(session_version=session.version, owner=session.owner)
        now = self._clock.now()
        said = {
            "source": source,
            "role": "assistant",
            "at": now,
            "task_id": task_id,
            "text": text,
            "facts": facts,
        }
        fields = dict(changes or {})
        if hand_over:
            fields |= {"owner": HUMAN, "waiting_since": now}
        leaving = documents(source, outgoing)
        change = _Change(fields, said=said, outgoing=leaving, activity=activity)
        if self._advance(session, change, at=now) is None:
            # Lost, or done with a lost acknowledgement.
            session = self.get(session.id)
            said_at = self.spoken_at(session, source)
            if said_at is None:
                raise StaleContext(session_version=session.version, owner=session.owner)
            now = said_at
        self.project(self.get(session.id))
        return now

    def spoken_at(self, session: Session, source: str) -> dt.datetime | None:
        """When what has this source was said in a session; None where it was not."""
        if (session.said or {}).get("source") == source:
            at: dt.datetime = (session.said or {})["at"]
            return at
        with store_errors():
            known = self._messages.find_one({"source": source}, {"at": 1})
        return None if known is None else known["at"]

    def answer_to(self, session: Session, source: str) -> Message | None:
        """The customer's first message after what has this source; None where there is none."""
        self.project(session)
        with store_errors():
            known = self._messages.find_one({"source": source}, {"n": 1})
        after = None if known is None else int(known["n"])
        while after is not None:
            found = self.messages(session, after=after, limit=100)
            answer = next((message for message in found if message.role == "customer"), None)
            if answer is not None or not found:
                return answer
            after = found[-1].n
        return None

    @staticmethod
    def _check_size(session: Session, own: Document | None, shared: Document | None) -> None:
        size = len(bson.encode(session.context)) + len(bson.encode((own or {}) | (shared or {})))
        if size > MAX_CONTEXT_BYTES:
            raise TaskError(
                "context_too_large", "The context of a session has a limit.", bytes=size
            )

    def on_busy(self, session: Session) -> OnBusy:
        """What becomes of a message that comes while another is answered."""
        return session.on_busy or self._settings.on_busy

    # -- a person --------------------------------------------------------------------

    def take(self, session_id: str, by: str) -> Session:
        """Let a person answer from here on; no reply of the bot commits after this.

        Raises:
            NotFound: no such session.
            SessionClosed: it has ended.
            SessionTaken: another person has it.
        """

        def change(session: Session) -> _Change | None:
            if session.status == CLOSED:
                raise SessionClosed()
            if session.owner == HUMAN and session.taken_by == by:
                return None
            if session.owner == HUMAN and session.taken_by is not None:
                raise SessionTaken(taken_by=session.taken_by)
            return _Change({"owner": HUMAN, "taken_by": by})

        return self._changed(session_id, change)

    def give_back(self, session_id: str) -> Session:
        """Let the bot answer again, from the next message on.

        Raises:
            NotFound: no such session.
        """

        def change(session: Session) -> _Change | None:
            if session.owner == BOT:
                return None
            return _Change({"owner": BOT, "taken_by": None, "waiting_since": None})

        return self._changed(session_id, change)

    def reply_as_person(
        self,
        session_id: str,
        text: str,
        *,
        by: str,
        key: str,
        outgoing: Callable[[Session], Sequence[Outgoing]] = lambda session: (),
    ) -> Session:
        """Say something to the customer as the person who has the session.

        The same `key` again says nothing more. `outgoing` is asked what leaves, if this counts.

        Raises:
            NotFound: no such session.
            SessionNotTaken: the bot has it; take it first.
            SessionTaken: another person has it.
        """
        source = f"person.{session_id}.{key}"

        def change(session: Session) -> _Change | None:
            if (session.said or {}).get("source") == source or self._is_noted(source):
                return None
            if session.owner != HUMAN:
                raise SessionNotTaken()
            if session.taken_by not in (None, by):
                raise SessionTaken(taken_by=session.taken_by)
            said = {
                "source": source,
                "role": "person",
                "at": self._clock.now(),
                "task_id": None,
                "text": text,
                "facts": {"by": by},
            }
            leaving = documents(source, outgoing(session))
            return _Change({"taken_by": by, "waiting_since": None}, said=said, outgoing=leaving)

        session = self._changed(session_id, change)
        self.project(session)
        return session

    def close(self, session_id: str) -> Session:
        """End a conversation: its phone's next message begins a new one.

        Raises:
            NotFound: no such session.
        """

        def change(session: Session) -> _Change | None:
            if session.status == CLOSED:
                return None
            fields = {"status": CLOSED, "owner": BOT, "taken_by": None, "waiting_since": None}
            return _Change(fields, unset=("open_phone",))

        return self._changed(session_id, change)

    def set_on_busy(self, session_id: str, on_busy: OnBusy | None) -> Session:
        """Say what becomes of messages that come while another is answered; None: the default.

        Raises:
            NotFound: no such session.
        """
        return self._changed(session_id, lambda _: _Change({"on_busy": on_busy}))

    def _changed(self, session_id: str, change: Callable[[Session], "_Change | None"]) -> Session:
        """Apply a change that is worked out anew as long as others are faster; None: as it is."""
        for _ in range(TRIES):
            session = self.get(session_id)
            wanted = change(session)
            if wanted is None:
                return session
            if self._advance(session, wanted) is not None:
                return self.get(session_id)
        raise StaleContext(session_version=session.version, owner=session.owner)

    # -- the compare-and-set ---------------------------------------------------------

    def _advance(
        self,
        session: Session,
        change: _Change,
        *,
        mark: str | None = None,
        at: dt.datetime | None = None,
    ) -> Document | None:
        """The one compare-and-set: version -> version + 1; None where the session has changed,
        else what `project` returned before it.

        What was said before is seen among the messages first, for `said` is about to be
        replaced, and the context is kept as the older version that it becomes.
        """
        noted = self.project(session)
        now = at or self._clock.now()
        self._keep(session, now)
        query: Document = {"_id": session.id, "version": session.version}
        if mark is not None:
            query["mark"] = mark
        fields = change.fields | {"said": change.said, "noted": noted, "updated_at": now}
        if change.activity:
            fields["active_at"] = now
        push = dict(change.push)
        if change.outgoing:
            push["outgoing"] = {"$each": list(change.outgoing)}
            fields["unsent_at"] = now
        update: Document = {"$set": fields, "$inc": {"version": 1}}
        if push:
            update["$push"] = push
        if change.unset:
            update["$unset"] = dict.fromkeys(change.unset, "")
        with store_errors():
            changed = self._sessions.update_one(query, update).matched_count
        return noted if changed else None

    def _keep(self, session: Session, now: dt.datetime) -> None:
        days = self._settings.context_history_days
        if not days:
            return
        kept = {
            "_id": f"{session.id}:{session.version}",
            "session_id": session.id,
            "version": session.version,
            "context": session.context,
            "at": session.updated_at,
            "expire_at": now + dt.timedelta(days=days),
        }
        # It may be there, of a change that came to nothing: one version, one context.
        with store_errors(), contextlib.suppress(DuplicateKeyError):
            self._contexts.insert_one(kept)

    # -- messages --------------------------------------------------------------------

    def project(self, session: Session) -> Document:
        """See that all that was said until now is among the messages; repeatable by anybody.

        Returns {n, seq}: the last number, and up to which task customers' messages are there.
        """
        n, seq = session.noted["n"], session.noted["seq"]
        with store_errors():
            found = self._messages.find(
                {"session_id": session.id, "n": {"$gt": n}}, {"n": 1, "source": 1}
            )
            known = {document["source"]: document["n"] for document in found}
            tasks = self._store.of_key(ordering_key(session.id), seq)
        n = max(known.values(), default=n)
        waiting = [_said_by(task) for task in tasks]
        if session.said is not None and session.said["source"] not in known:
            said = _in_full(session)
            # In order of time; among customers' messages in that of acceptance.
            place = sum(each["at"] <= said["at"] for each in waiting if each is not None)
            waiting.insert(place, said)
        for each in waiting:
            if each is not None and each["source"] not in known:
                n = self._note(session.id, n, each)
        return {"n": n, "seq": max((task.seq or 0 for task in tasks), default=seq)}

    def _note(self, session_id: str, n: int, said: Document) -> int:
        """Insert a message under the first free number after `n`; returns the last one known."""
        while True:
            n += 1
            document = said | {"_id": f"{session_id}:{n}", "session_id": session_id, "n": n}
            with store_errors():
                try:
                    self._messages.insert_one(document)
                except DuplicateKeyError:
                    # Somebody projects at the same time: this one, or another under the number.
                    known = self._messages.find_one({"source": said["source"]}, {"n": 1})
                    if known is not None:
                        return max(n - 1, int(known["n"]))
                    continue
            return n

    def _is_noted(self, source: str) -> bool:
        with store_errors():
            return self._messages.find_one({"source": source}, {"_id": 1}) is not None


def _text_of(task: Task) -> str | None:
    text = task.payload.get("message")
    return text if isinstance(text, str) else None


def _said_by(task: Task) -> Document | None:
    """A customer's message as its task brought it; None for a task that brings none."""
    text, medium = _text_of(task), task.payload.get("medium")
    if text is None and medium is None:
        return None
    return {
        "source": task.id,
        "role": "customer",
        "text": text or "",
        "at": task.created_at,
        "task_id": task.id,
        "facts": {} if text else {"medium": medium},
    }


def _in_full(session: Session) -> Document:
    said = session.said or {}
    return said if "text" in said else _with_reply(said, (session.committed or {})["reply"])


def _with_reply(said: Document, reply: Document) -> Document:
    facts = {name: fact for name, fact in reply.items() if name != "text"}
    return said | {"text": reply["text"], "facts": facts}


def _mark_of(task: Task) -> str:
    return f"{task.id}/{task.fence}"


def _message(document: Document) -> Message:
    return Message(**{name: document[name] for name in Message.__dataclass_fields__})


def _belongs(document: Document, caller: str, phone: str | None) -> bool:
    if document["caller"] != caller:
        return False
    return phone is None or document.get("phone") in (None, phone)
