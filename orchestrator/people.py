"""People who answer in the bot's place: take a conversation, reply, give it back.

Keeps secret what follows from a change of owner: what the bot has not sent yet is dropped, what
the person says leaves by the session's channel, and whoever watches is told. Every step after
the session's own change is repeatable; the rescuer, and the sender of each entry, do what was
left undone.
"""

import secrets

from orchestrator.context import Session, Sessions, ordering_key
from orchestrator.outbox import Outbox, Outgoing
from orchestrator.replies import Replies
from orchestrator.settings import OnBusy

WAITING_SHOWN = 200


class People:
    """What a person may do with a conversation. Raises StoreUnavailable as `Sessions` does."""

    def __init__(self, sessions: Sessions, outbox: Outbox, replies: Replies) -> None:
        self._sessions = sessions
        self._outbox = outbox
        self._replies = replies

    def waiting(self, limit: int = WAITING_SHOWN) -> list[Session]:
        """Conversations whose customer waits for a person, the longest wait first."""
        return self._sessions.waiting(limit)

    def take(self, session_id: str, by: str) -> Session:
        """Answer from here on in the bot's place. No reply of the bot commits after this, and
        what it has not begun to send is dropped.

        Raises:
            NotFound, SessionClosed, SessionTaken: it cannot be taken.
        """
        session = self._sessions.take(session_id, by)
        self._outbox.drop_pending(session_id)
        return self._told(session)

    def reply(self, session_id: str, text: str, *, by: str, key: str | None = None) -> Session:
        """Say something to the customer; the same key again says nothing more.

        Raises:
            NotFound, SessionNotTaken, SessionTaken: it is not this person's to answer.
        """

        def leaving(session: Session) -> list[Outgoing]:
            language = session.context["shared"].get("language") or "es"
            return self._outbox.of_message(session, text, author="person", language=language)

        session = self._sessions.reply_as_person(
            session_id, text, by=by, key=key or secrets.token_hex(8), outgoing=leaving
        )
        self._outbox.project(session_id)
        return self._told(session)

    def give_back(self, session_id: str) -> Session:
        """Let the bot answer from the next message on.

        Raises:
            NotFound: no such conversation.
        """
        return self._told(self._sessions.give_back(session_id))

    def close(self, session_id: str) -> Session:
        """End a conversation.

        Raises:
            NotFound: no such conversation.
        """
        return self._told(self._sessions.close(session_id))

    def set_on_busy(self, session_id: str, on_busy: OnBusy | None) -> Session:
        """Say what becomes of messages that come while another is answered.

        Raises:
            NotFound: no such conversation.
        """
        return self._sessions.set_on_busy(session_id, on_busy)

    def _told(self, session: Session) -> Session:
        self._replies.announce_news(ordering_key(session.id))
        return session
