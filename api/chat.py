"""The chat routes: a customer's message in, the reply out, in both dialects."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apiflask import APIBlueprint
from flask import g, request

from api.auth import Access, Caller
from api.errors import ChatUnstaffed, Erased, RequestInFlight, TaskCancelled, TaskFailed
from api.inputs import idempotency_key
from api.promptness import prompt
from api.schemas import ChatMessage, ChatReply, Turn, Waiting
from orchestrator import logs
from orchestrator.context import ordering_key
from orchestrator.engine import Engine
from orchestrator.errors import NoCapableAgent, StoreUnavailable
from orchestrator.tasks import Request, State, Task, digest

TASK_TYPE = "process_message"
# Both paths of the chat are one: a key that came by either is the same.
ROUTE = "chat"
SPANISH, ENGLISH = "es", "en"
Document = dict[str, Any]

PATIENCE = {
    SPANISH: "Recibí tu mensaje. Necesito un momento más y te respondo enseguida.",
    ENGLISH: "I have your message. I need a moment more and will answer right away.",
}
A_PERSON = {
    SPANISH: "Te responde una persona por este mismo medio.",
    ENGLISH: "A person will answer you here.",
}
APOLOGY = {
    SPANISH: "Disculpá, no pude responder a tu mensaje. ¿Me lo enviás de nuevo?",
    ENGLISH: "Sorry, I could not answer your message. Could you send it again?",
}


@dataclass(frozen=True)
class MessageRequest(Request):
    """A request that is the same request when the client sent the same.

    Its payload holds a session that may have been made here, anew for each repetition.
    """

    sent: str = ""

    def fingerprint(self) -> str:
        """Equal for equal bodies of the client."""
        return digest(self.sent)


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """`POST /chat/process` and `POST /api/chat`, which are the same."""
    chat = APIBlueprint("chat", __name__, tag="Chat")

    @chat.post("/chat/process")
    @chat.post("/api/chat")
    @access.customer
    @chat.output(ChatReply, description="The reply.")
    @chat.input(ChatMessage)
    @chat.input(Waiting, location="query")
    @chat.doc(
        summary="Send a customer's message",
        responses={
            202: "Accepted, and the reply is still to come: read the task that `Location` names.",
            400: "The body or a header cannot be read.",
            401: "Credentials are missing or unknown.",
            409: "`request_in_flight`: the request with this Idempotency-Key is under way, "
            "`Location` names its task. `busy`: the conversation takes one message at a time.",
            410: "The request was made before with this key, and erased since.",
            413: "The body is larger than 64 kB.",
            415: "The body is not JSON in UTF-8.",
            422: "A field is not valid, or the Idempotency-Key came with another body.",
            429: "Too many messages of this conversation are waiting.",
            500: "The message could not be answered.",
            503: "`overloaded`: it was not accepted. Else unknown: send it again with the same "
            "key.",
        },
    )
    def send(caller: Caller, json_data: ChatMessage, query_data: Waiting) -> Any:
        """Send a customer's message and wait for the reply.

        Either set of names may be used; the reply carries both. Messages that come close
        together are understood together and have one reply, with one `turn_id`.

        An `Idempotency-Key` makes repetitions safe: for 24 h the first answer comes again, and
        409 while there is none yet. Without one, the same text in the same session within
        10 s, while the first is unanswered, is the same message; a client that sends neither a
        session nor a phone cannot be recognised.
        """
        began = time.monotonic()
        turn = json_data.turn()
        key = idempotency_key(request)
        task, language, created = _accept(engine, turn, caller, key)
        if key is not None and not created:
            return again(engine, task, lambda: _answer(task, language))
        wait_s = engine.settings.chat_wait_s if query_data.wait is None else query_data.wait
        # Once accepted it will be answered: no 503, or the client would send it again.
        with contextlib.suppress(StoreUnavailable):
            task = engine.replies.wait(task.id, began + wait_s - time.monotonic())
        body, status = _answer(task, language)
        if key is not None and status == 202:
            with contextlib.suppress(StoreUnavailable), prompt(engine):
                first = engine.responses.keep(task.id, status, body)
                body, status = first.body, first.status
        return body, status, {"Location": location(task)} if status == 202 else {}

    return chat


def again(engine: Engine, task: Task, answer: Callable[[], tuple[Document, int]]) -> Any:
    """The answer to a request that came before under the same key: as it was first given.

    Raises:
        RequestInFlight: it was given none yet, and the task has not ended.
    """
    with prompt(engine):
        first = engine.responses.get(task.id)
        if first is None and not task.state.final:
            raise RequestInFlight(task_id=task.id, location=location(task))
        if first is None:
            body, status = answer()
            first = engine.responses.keep(task.id, status, body)
    headers = {"Location": location(task)} if first.status == 202 else {}
    return first.body, first.status, headers


def _answer(task: Task, language: str) -> tuple[Document, int]:
    """Body and status for a task as it stands.

    Raises:
        TaskFailed: it ended without a reply.
        Erased: nothing is kept of it.
    """
    if task.state is State.COMPLETED:
        return _both_dialects(task, task.result), 200
    if task.state.final:
        raise _not_answered(task, language)
    return _both_dialects(task, {"text": PATIENCE[language]}), 202


def location(task: Task) -> str:
    """Where a task is read."""
    return f"/api/tasks/{task.id}"


def pdf_path(quote_id: str) -> str:
    """Where a quote's PDF is."""
    return f"/api/quotes/{quote_id}.pdf"


def reply(task: Task) -> dict[str, Any] | None:
    """What a completed chat task answers; None for any other task."""
    if task.type != TASK_TYPE or task.state is not State.COMPLETED:
        return None
    return _both_dialects(task, task.result)


def _accept(engine: Engine, turn: Turn, caller: Caller, key: str | None) -> tuple[Task, str, bool]:
    """The durable task of a message, the language of sentences that are ours, and whether the
    task is new."""
    language = turn.language or (SPANISH if turn.spanish_names else ENGLISH)
    payload = {"message": turn.message, "phone": turn.phone, "channel": turn.channel}
    if turn.language is not None:
        payload["language"] = turn.language
    asked = MessageRequest(
        type=TASK_TYPE,
        payload=payload,
        caller=caller.name,
        idempotency_key=key,
        route=ROUTE,
        sent=json.dumps([payload, turn.session_id], sort_keys=True),
    )
    with prompt(engine):
        known = engine.store.by_idempotency_key(asked)
        if known is not None:
            return known, language, False
        try:
            # Before a session is made: it rests on indexes that an agent's start makes.
            engine.declarations.capable(TASK_TYPE, ())
        except NoCapableAgent:
            raise ChatUnstaffed() from None
        engine.admission.check(asked)
        session = engine.sessions.open(
            turn.session_id,
            turn.phone,
            caller=caller.name,
            channel=turn.channel,
            # Whoever else gets this far holds a key of its own, or is on this machine.
            trusted=not caller.anybody,
        )
        logs.about(session=logs.pseudonym(session.id))
        on_busy = engine.sessions.on_busy(session)
        task, created = engine.coordinator.submit(
            MessageRequest(
                type=TASK_TYPE,
                payload=payload | {"session_id": session.id},
                caller=caller.name,
                idempotency_key=key,
                route=ROUTE,
                ordering_key=ordering_key(session.id),
                seq_after=session.seq,
                alone=on_busy == "reject",
                twin=None if key else digest(json.dumps([session.id, session.seq, turn.message])),
                sent=asked.sent,
                request_id=g.request_id,
            ),
            quiet_s=engine.settings.quiet_ms / 1000 if on_busy == "coalesce" else 0.0,
        )
    engine.replies.announce_news(ordering_key(session.id))
    spoken = turn.language or session.context["shared"].get("language")
    return task, spoken if spoken in PATIENCE else language, created


def _not_answered(task: Task, language: str) -> Exception:
    if (task.error or {}).get("code") == Erased.code:
        return Erased(task_id=task.id)
    kind = TaskCancelled if task.state is State.CANCELLED else TaskFailed
    session_id = task.payload.get("session_id")
    return kind(
        task_id=task.id,
        task_error=(task.error or {}).get("code"),
        session_id=session_id,
        sesion_id=session_id,
        response=APOLOGY[language],
        mensaje=APOLOGY[language],
    )


def _both_dialects(task: Task, result: dict[str, Any]) -> dict[str, Any]:
    session_id = task.payload.get("session_id")
    needs, actions = result.get("needs", []), result.get("actions", [])
    confidence, quote = result.get("confidence"), result.get("quote")
    if quote is not None:
        quote = quote | {"pdf": pdf_path(quote["id"])}
    owner = result.get("owner", "bot")
    language = result.get("language")
    silent = owner == "human" and not result["text"]
    notice = A_PERSON.get(language or SPANISH, A_PERSON[ENGLISH]) if silent else None
    return {
        "response": result["text"],
        "mensaje": result["text"],
        "session_id": session_id,
        "sesion_id": session_id,
        "intent": result.get("intent"),
        "tipo": result.get("tipo"),
        "confidence": confidence,
        "confianza": confidence,
        "needs": needs,
        "necesita_datos": needs,
        "actions": actions,
        "acciones": actions,
        "quote": quote,
        "cotizacion": quote,
        "answered_by": result.get("answered_by"),
        "owner": owner,
        "notice": notice,
        "aviso": notice,
        "turn_id": result.get("turn_id", task.id),
        "timestamp": task.finished_at or task.created_at,
        "task_id": task.id,
    }
