"""Conversations: read them, and answer in them as a person.

The operator sees all of them; a client with a key of its own, or a program of this machine, its
own ones; whoever writes from the chat page the one whose id it has.
"""

from typing import Any

from apiflask import APIBlueprint
from flask import request

from api import pages, schemas
from api.auth import Access, Caller
from api.chat import pdf_path
from api.errors import Forbidden
from api.inputs import idempotency_key
from api.promptness import prompt
from orchestrator.context import Message, Session
from orchestrator.engine import Engine
from orchestrator.errors import Invalid, NotFound

Document = dict[str, Any]
LISTED = "A page; `Link` and the token lead to the next."
# Of each conversation, for clients that read whole ones.
CONVERSATION_MESSAGES = 100

READING = {
    401: "Credentials are missing or unknown.",
    404: "No such conversation, or none that this caller may see.",
    422: "A parameter is not valid.",
    503: "The store is unavailable.",
}
LISTING = {
    401: READING[401],
    403: "The chat page's key shows no list.",
    422: READING[422],
    503: READING[503],
}
OPERATING = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    404: "No such conversation.",
    409: "It is another person's, or closed, or has to be taken first; or it keeps changing.",
    503: "Unknown whether it was done: do it again.",
}
WRITING = OPERATING | {
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "A field is not valid.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/sessions`, and `/conversations`."""
    sessions = APIBlueprint("sessions", __name__, tag="Conversations")

    def visible(session_id: str, caller: Caller) -> Session:
        session = engine.sessions.get(session_id)
        if not caller.may_see(session.caller):
            raise NotFound("No such session")
        return session

    def listed(caller: Caller, query: pages.PageQuery, **asked: str | None) -> Any:
        if caller.anybody:
            raise Forbidden("The chat page's key shows a conversation by its id only.")
        own = None if caller.operator else caller.name
        with pages.positions():
            return engine.sessions.listed(
                limit=query.page_size, position=query.position(), caller=own, **asked
            )

    def shown(session: Session) -> Document:
        return _session(session, engine.sessions.on_busy(session))

    @sessions.get("/api/sessions")
    @access.customer
    @sessions.output(schemas.SessionList, description=LISTED)
    @sessions.input(schemas.SessionQuery, location="query")
    @sessions.doc(summary="List conversations", responses=LISTING)
    def index(caller: Caller, query_data: schemas.SessionQuery) -> Any:
        """The caller's conversations, and the operator's all, the newest first.

        With `waiting=true`, for the operator: those whose customer waits for a person.
        """
        with prompt(engine):
            if query_data.waiting is not None:
                return {"sessions": [shown(each) for each in waiting(caller, query_data)]}
            found, following = listed(
                caller,
                query_data,
                owner=query_data.owner,
                status=query_data.status,
                channel=query_data.channel,
            )
        return query_data.answer("sessions", [shown(each) for each in found], following)

    def waiting(caller: Caller, query: schemas.SessionQuery) -> list[Session]:
        if not caller.operator:
            raise Forbidden("This needs the operator token.")
        if query.owner == "bot" or query.status or query.channel or query.page_token:
            detail = "is not combined with other filters than owner=human"
            raise Invalid(errors=[{"parameter": "waiting", "detail": detail}])
        return engine.people.waiting(query.page_size)

    @sessions.get("/api/sessions/<session_id>")
    @access.customer
    @sessions.output(schemas.SessionState)
    @sessions.doc(summary="Read a conversation", responses=READING)
    def read(session_id: str, caller: Caller) -> Any:
        """Whose it is, who answers in it, and how it stands."""
        with prompt(engine):
            return shown(visible(session_id, caller))

    @sessions.get("/api/sessions/<session_id>/messages")
    @access.customer
    @sessions.output(schemas.SessionMessages, description=LISTED)
    @sessions.input(schemas.MessageQuery, location="query")
    @sessions.doc(summary="Read what was said", responses=READING)
    def messages(session_id: str, caller: Caller, query_data: schemas.MessageQuery) -> Any:
        """Messages in order, a page at a time; all that was accepted is among them."""
        with prompt(engine), pages.positions():
            session = visible(session_id, caller)
            position = query_data.position()
            after = query_data.after if position is None else int(position)
            # One more than is shown tells whether there is a next page.
            found = engine.sessions.messages(session, after=after, limit=query_data.page_size + 1)
        page = found[: query_data.page_size]
        following = str(page[-1].n) if len(found) > len(page) else None
        body, status, headers = query_data.answer("messages", list(map(_message, page)), following)
        return body | {"session_id": session_id}, status, headers

    @sessions.get("/api/sessions/<session_id>/context")
    @access.customer
    @sessions.output(schemas.SessionContext)
    @sessions.input(schemas.ContextQuery, location="query")
    @sessions.doc(
        summary="Read the context",
        responses=READING | {404: "No such conversation, or the version is no longer kept."},
    )
    def context(session_id: str, caller: Caller, query_data: schemas.ContextQuery) -> Any:
        """What the agents keep of a conversation, now or in an older version."""
        with prompt(engine):
            session = visible(session_id, caller)
            version = session.version if query_data.version is None else query_data.version
            kept = engine.sessions.context_at(session, version)
        return {
            "session_id": session_id,
            "version": kept["version"],
            "at": kept["at"],
            "current_version": session.version,
            **kept["context"],
        }

    @sessions.patch("/api/sessions/<session_id>")
    @access.operator
    @sessions.output(schemas.SessionState)
    @sessions.input(schemas.SessionChange)
    @sessions.doc(summary="Change a conversation", responses=WRITING)
    def change(session_id: str, caller: Caller, json_data: schemas.SessionChange) -> Any:
        """Close it, or say what becomes of messages that come while another is answered."""
        with prompt(engine):
            session = visible(session_id, caller)
            if json_data.on_busy is not None:
                session = engine.people.set_on_busy(session_id, json_data.on_busy)
            if json_data.status is not None:
                session = engine.people.close(session_id)
            return shown(session)

    @sessions.post("/api/sessions/<session_id>/take")
    @access.operator
    @sessions.output(schemas.SessionState)
    @sessions.input(schemas.TakeOver)
    @sessions.doc(summary="Answer in the bot's place", responses=WRITING)
    def take(session_id: str, caller: Caller, json_data: schemas.TakeOver) -> Any:
        """A person answers from here on: no reply of the bot takes effect after this, and what
        it has not begun to send is dropped. Repeatable by the same person."""
        with prompt(engine):
            return shown(engine.people.take(session_id, json_data.by))

    @sessions.post("/api/sessions/<session_id>/reply")
    @access.operator
    @sessions.output(schemas.SessionState)
    @sessions.input(schemas.PersonReply)
    @sessions.doc(summary="Reply as a person", responses=WRITING)
    def answer(session_id: str, caller: Caller, json_data: schemas.PersonReply) -> Any:
        """Say something to the customer, by the conversation's channel; it must be taken.

        With an `Idempotency-Key` a repetition says nothing more.
        """
        with prompt(engine):
            return shown(
                engine.people.reply(
                    session_id, json_data.text, by=json_data.by, key=idempotency_key(request)
                )
            )

    @sessions.post("/api/sessions/<session_id>/give-back")
    @access.operator
    @sessions.output(schemas.SessionState)
    @sessions.doc(summary="Let the bot answer again", responses=OPERATING)
    def give_back(session_id: str, caller: Caller) -> Any:
        """The bot answers from the next message on. Repeatable."""
        with prompt(engine):
            return shown(engine.people.give_back(session_id))

    @sessions.get("/conversations")
    @access.customer
    @sessions.output(schemas.Conversations, description="A page; `Link` leads to the next.")
    @sessions.input(schemas.ConversationQuery, location="query")
    @sessions.doc(summary="Read conversations", responses=LISTING)
    def conversations(caller: Caller, query_data: schemas.ConversationQuery) -> Any:
        """Conversations with their newest messages, as existing clients read them."""
        with prompt(engine):
            found, following = listed(caller, query_data)
            whole = schemas.Conversations.model_validate([conversation(each) for each in found])
        return whole, 200, query_data.answer("conversations", [], following)[2]

    @sessions.get("/conversations/<session_id>")
    @access.customer
    @sessions.output(schemas.Conversation)
    @sessions.doc(summary="Read one conversation", responses=READING)
    def one_conversation(session_id: str, caller: Caller) -> Any:
        """A conversation with its newest messages, as existing clients read it."""
        with prompt(engine):
            return conversation(visible(session_id, caller))

    def conversation(session: Session) -> Document:
        last = engine.sessions.project(session)["n"]
        told = engine.sessions.messages(
            session, after=max(last - CONVERSATION_MESSAGES, 0), limit=CONVERSATION_MESSAGES
        )
        return {
            "sessionId": session.id,
            "phone": session.phone,
            "messages": [
                {
                    "role": "user" if message.role == "customer" else "assistant",
                    "content": message.text,
                    "timestamp": message.at,
                }
                for message in told
            ],
            "createdAt": session.created_at,
        }

    return sessions


def _session(session: Session, on_busy: str) -> Document:
    shared = session.context["shared"]
    return {
        "session_id": session.id,
        "channel": session.channel,
        "phone": session.phone,
        "name": shared.get("name"),
        "language": shared.get("language"),
        "status": session.status,
        "owner": session.owner,
        "taken_by": session.taken_by,
        "waiting_since": session.waiting_since,
        "on_busy": on_busy,
        "version": session.version,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    }


def _message(message: Message) -> Document:
    facts = message.facts
    quote = facts.get("quote")
    return {
        "n": message.n,
        "role": message.role,
        "text": message.text,
        "at": message.at,
        "task_id": message.task_id,
        "by": facts.get("by"),
        "medium": facts.get("medium"),
        "intent": facts.get("intent"),
        "tipo": facts.get("tipo"),
        "actions": facts.get("actions", []),
        "quote": None if quote is None else quote | {"pdf": pdf_path(quote["id"])},
    }
