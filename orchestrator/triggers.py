"""What starts runs by itself: events of the desk, and conversations that fall silent.

Keeps secret how an event starts a workflow once, however often it is said, and how silences are
found without looking at a session twice. Schedules are the definition store's: they are timers.

Collection `silences`, one document for each workflow and length of silence that starts it:

    _id       "{workflow} {after}"
    until     sessions last touched before this have been looked at

Written by this module only.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.context import OPEN, Session, Sessions
from orchestrator.definition_store import DefinitionStore
from orchestrator.definitions import Definition, OnEvent, seconds
from orchestrator.errors import Invalid
from orchestrator.expressions import BadExpression, evaluate, filled
from orchestrator.logs import log
from orchestrator.tasks import Document, store_errors
from orchestrator.workflows import Workflows

IDLE: Final = "conversation_idle"


class Triggers:
    """One per process. Raises StoreUnavailable as the task store does."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        definitions: DefinitionStore,
        workflows: Workflows,
        sessions: Sessions,
    ) -> None:
        self._silences = database["silences"]
        self._clock = clock
        self._definitions = definitions
        self._workflows = workflows
        self._sessions = sessions

    def happened(self, event: str, key: str, facts: Document) -> int:
        """Start the workflows that an event starts, once for each `key`; how many it starts.

        Called by whoever made it happen, after its commit and each time that its task is run.
        """
        return sum(
            self._start(definition, start, key, facts)
            for definition, start in self._starts()
            if start.event == event
        )

    def fall_silent(self, limit: int) -> int:
        """Start the workflows that wait for a conversation to be silent, once for each silence.

        A silence begins with the last thing that was said or done in a session, and is the same
        one until the customer writes again: what is said to the customer meanwhile begins none.
        At most so many sessions are looked at for each of these workflows; how many runs began.
        """
        started = 0
        for definition, start in self._starts():
            if start.event == IDLE:
                started += self._look(definition, start, limit)
        return started

    def _look(self, definition: Definition, start: OnEvent, limit: int) -> int:
        silent_since = self._clock.now() - dt.timedelta(seconds=seconds(start.after))
        mark = f"{definition.id} {start.after}"
        with store_errors():
            known = self._silences.find_one({"_id": mark})
            if known is None:
                # Who fell silent before anybody wanted to know is left alone.
                document = {"_id": mark, "until": silent_since}
                try:
                    self._silences.insert_one(document)
                except DuplicateKeyError:
                    return 0
                return 0
        found = self._sessions.silent_between(known["until"], silent_since, limit)
        while len(found) == limit and found[-1].updated_at == known["until"]:
            # So many of one instant: the next pass would come no farther.
            limit *= 2
            found = self._sessions.silent_between(known["until"], silent_since, limit)
        started, until = 0, known["until"]
        for session in found:
            if session.status == OPEN and session.seq:
                facts = _facts(session)
                started += self._start(definition, start, f"{session.id}/{session.seq}", facts)
            until = session.updated_at
        if len(found) < limit:
            until = silent_since
        if until > known["until"]:
            with store_errors():
                self._silences.update_one({"_id": mark}, {"$max": {"until": until}})
        return started

    def _starts(self) -> Iterator[tuple[Definition, OnEvent]]:
        for definition in self._definitions.all():
            for start in definition.workflow.on:
                if isinstance(start, OnEvent):
                    yield definition, start

    def _start(self, definition: Definition, start: OnEvent, key: str, facts: Document) -> bool:
        try:
            data = {"event": facts}
            if start.when is not None and evaluate(start.when, data) is not True:
                return False
            given = filled(start.input, data) if start.input else facts
            key = f"{start.event}/{key}"
            _, created = self._workflows.start(
                definition.id, given, caller="event", trigger=start.event, key=key
            )
        except (BadExpression, Invalid) as error:
            log.warning("workflow.not_started", workflow=definition.id, code=error.code)
            return False
        return created


def _facts(session: Session) -> Document:
    """What expressions know of a silence; nothing that the customer has written."""
    shared = session.context["shared"]
    return {
        "session_id": session.id,
        "channel": session.channel,
        "owner": session.owner,
        "language": shared.get("language"),
        "quote_id": (shared.get("last_quote") or {}).get("id"),
        "silent_since": session.updated_at.isoformat(),
        "message": session.seq,
    }
