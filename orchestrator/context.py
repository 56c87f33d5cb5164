"""Sessions: a conversation's turns and the state that agents share.

Keeps secret how a turn takes effect exactly once. Everything that a turn changes (context,
reply, what it answers) is one document, and `commit` is one compare-and-set on its version:
a second run of the same task finds itself committed; a run that read an older version, or
whose session a person took over meanwhile, changes nothing.

Collection `sessions`, one document per conversation:

    _id             the session id, given by the client or made here
    caller          who opened it; sessions of one caller are not reached by another
    channel         "web", "whatsapp", ...
    phone           the customer's, or null
    open_phone      caller and phone while open and trusted: unique, so that a phone has one
    owner           "bot" | "human": who answers
    version         rises with each commit and each change of owner
    context         {shared: {...}, agents: {agent id: {...}}}
    seq             number of the last task that a reply covered (`covered_through`)
    fence           fence of the last commit
    committed       {task_id, reply} of the last commit
    turns           [{task_id, seq, at, intent}], the newest 50
    outgoing        [{id, task_id, ...}] committed, and not in the outbox yet
    unsent_at       time of the last commit with such entries; gone when they are in the outbox
    created_at, updated_at

Written by `Sessions`; kept until a customer's data is erased.
"""

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.errors import NotFound, StaleContext
from orchestrator.outbox import Outgoing, documents
from orchestrator.tasks import Task, ensure_index, store_errors

Document = dict[str, Any]
TURNS_KEPT = 50


@dataclass(frozen=True)
class Session:
    """A session as it was read."""

    id: str
    caller: str
    channel: str
    phone: str | None
    owner: str
    version: int
    context: Document
    seq: int
    fence: int
    committed: Document | None
    created_at: dt.datetime
    updated_at: dt.datetime
    outgoing: tuple[Document, ...] = ()

    @classmethod
    def from_document(cls, document: Document) -> "Session":
        """Read what the collection holds."""
        return cls(
            id=document["_id"],
            caller=document["caller"],
            channel=document["channel"],
            phone=document.get("phone"),
            owner=document["owner"],
            version=document["version"],
            context=document["context"],
            seq=document["seq"],
            fence=document["fence"],
            committed=document.get("committed"),
            outgoing=tuple(document.get("outgoing", ())),
            created_at=document["created_at"],
            updated_at=document["updated_at"],
        )

    def of_agent(self, agent_id: str) -> Document:
        """What this agent keeps for itself in the session."""
        kept: Document = self.context["agents"].get(agent_id, {})
        return kept

    def reply_to(self, task_id: str) -> Any | None:
        """The reply, if this task's turn is committed already."""
        if self.committed is None or self.committed["task_id"] != task_id:
            return None
        return self.committed["reply"]


class Sessions:
    """Open, read and commit sessions. Raises StoreUnavailable as the task store does."""

    def __init__(self, database: Database[Document], clock: Clock) -> None:
        self._sessions = database["sessions"]
        self._clock = clock

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._sessions, "commit", "_id version")
        ensure_index(
            self._sessions,
            "open_phone",
            "open_phone",
            unique=True,
            where={"open_phone": {"$gt": ""}},
        )
        ensure_index(self._sessions, "idle", "updated_at")
        ensure_index(self._sessions, "unsent", "unsent_at")

    def open(
        self, session_id: str | None, phone: str | None, *, caller: str, channel: str, trusted: bool
    ) -> Session:
        """The session that a message belongs to, made if there is none.

        A trusted phone (a signed channel, a client's key, loopback) goes on in its open
        session whatever session id came. A known session id that comes with another phone, or
        from another caller, gets a new session: nobody reads another customer's conversation.
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
                    return self._with_phone(Session.from_document(known), phone, open_phone)
                if known is not None:
                    session_id = None
            return self._create(session_id, phone, open_phone, caller, channel)

    def _with_phone(self, session: Session, phone: str | None, open_phone: str | None) -> Session:
        """The session with the phone that came for the first time: it is that customer's now."""
        if phone is None or session.phone == phone:
            return session
        fields = {"phone": phone} | ({"open_phone": open_phone} if open_phone else {})
        written = self._sessions.update_one(
            {"_id": session.id, "version": session.version},
            {"$set": fields, "$inc": {"version": 1}},
        ).matched_count
        if written:
            return replace(session, phone=phone, version=session.version + 1)
        # A turn was committed meanwhile, or another phone was first: look again.
        known = self.get(session.id)
        if known.phone in (None, phone):
            return self._with_phone(known, phone, open_phone)
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
            "owner": "bot",
            "version": 0,
            "context": {"shared": {}, "agents": {}},
            "seq": 0,
            "fence": 0,
            "committed": None,
            "turns": [],
            "created_at": now,
            "updated_at": now,
        }
        if open_phone is not None:
            document["open_phone"] = open_phone
        try:
            self._sessions.insert_one(document)
        except DuplicateKeyError:
            # Another request of the same customer was first: theirs is the session.
            known = None
            if open_phone is not None:
                known = self._sessions.find_one({"open_phone": open_phone})
            if known is None:
                known = self._sessions.find_one({"_id": document["_id"]})
            if known is not None and _belongs(known, caller, phone):
                return Session.from_document(known)
            return self._create(None, phone, open_phone, caller, channel)
        return Session.from_document(document)

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

    def commit(
        self,
        session: Session,
        task: Task,
        *,
        agent_id: str,
        state: Document,
        shared: Document,
        reply: Document,
        intent: str,
        outgoing: Sequence[Outgoing] = (),
    ) -> Any:
        """The commit point of a turn: all of it takes effect, once, or none of it.

        `session` is the one that the turn was worked out from. `state` replaces what the agent
        keeps for itself, `shared` is merged into what all agents see; `outgoing` leaves if, and
        only if, this counts (call `Outbox.project` after it: the rescuer does, if nobody can).
        Returns the reply that stands: the one given, or that of an earlier run of the same task.

        Raises:
            StaleContext: the session has changed since it was read; work the turn out again.
        """
        done = session.reply_to(task.id)
        if done is not None:
            return done
        if session.owner != "bot" or session.seq >= (task.seq or 0):
            raise StaleContext(session_version=session.version, owner=session.owner)
        now = self._clock.now()
        changes: Document = {
            f"context.agents.{agent_id}": state,
            "seq": task.seq,
            "fence": task.fence,
            "committed": {"task_id": task.id, "reply": reply},
            "updated_at": now,
        } | {f"context.shared.{name}": value for name, value in shared.items()}
        turn = {"task_id": task.id, "seq": task.seq, "at": now, "intent": intent}
        pushed: Document = {"turns": {"$each": [turn], "$slice": -TURNS_KEPT}}
        if outgoing:
            pushed["outgoing"] = {"$each": documents(task.id, outgoing)}
            changes["unsent_at"] = now
        with store_errors():
            written = self._sessions.update_one(
                {"_id": session.id, "version": session.version},
                {
                    "$set": changes,
                    "$inc": {"version": 1},
                    "$push": pushed,
                },
            ).matched_count
            if written:
                return reply
            # Lost, or done with a lost acknowledgement: the document tells.
            done = self.get(session.id).reply_to(task.id)
        if done is None:
            raise StaleContext(session_version=session.version, owner=session.owner)
        return done

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
        """Sessions whose last commit with outgoing entries was before a time, and that still
        hold them."""
        with store_errors():
            found = self._sessions.find({"unsent_at": {"$lt": before}}, {"_id": 1}).limit(limit)
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

    def idle_between(self, since: dt.datetime, until: dt.datetime, limit: int) -> list[Session]:
        """Open sessions last touched in a stretch of time."""
        with store_errors():
            found = self._sessions.find({"updated_at": {"$gte": since, "$lt": until}}).limit(limit)
            return [Session.from_document(document) for document in found]


def _belongs(document: Document, caller: str, phone: str | None) -> bool:
    if document["caller"] != caller:
        return False
    return phone is None or document.get("phone") in (None, phone)
