"""A quote's details, gathered by a workflow: asked for in a session, read from the answer.

Workflows (`agents/quote/workflows`) wait for the customer between these tasks; each does one
thing, and what it says in a session it says once, by its commit point there. The course of the
conversation is the dialogue's, as in any turn: what a workflow asks, and a message answers, the
conversation goes on from.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import InvalidOperation
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.conversation.dialogue import State as Dialogue
from agents.conversation.dialogue import (
    Turn,
    ask_for_missing,
    present_quote,
    reply,
)
from agents.conversation.meaning import Item
from agents.conversation.understanding import understand
from agents.conversation.wording import say
from agents.quotes import Quote
from agents.stores import stores_of
from orchestrator import TaskContext, TaskError
from orchestrator.context import BOT, OPEN, Session, ordering_key
from orchestrator.errors import NotFound

AGENT_ID: Final = "conversation_agent"
MEASURES: Final = ("thickness_mm", "length_m", "width_m", "area_m2")
SessionId = Annotated[str, Field(min_length=1, max_length=200)]
Document = dict[str, Any]
Word = Annotated[str, Field(max_length=200)]
Measure = Annotated[str, Field(max_length=62)] | float
STATE_CHARS: Final = 64 * 1024


class Wanted(BaseModel):
    """A thing in the shape in which quotes are requested, as far as it is known."""

    model_config = ConfigDict(extra="forbid")

    product: Word | None = None
    thickness_mm: Measure | None = None
    length_m: Measure | None = None
    width_m: Measure | None = None
    area_m2: Measure | None = None
    quantity: int | None = None
    colour: Word | None = None
    finishes: Annotated[list[tuple[Word, int]], Field(max_length=100)] | None = None
    anchors: bool | None = None
    freight: bool | None = None

    def item(self) -> Item:
        """The same for the dialogue; what cannot be read of it is asked for."""
        known = self.model_dump(exclude_none=True)
        measures = {name: str(known[name]) for name in MEASURES if name in known}
        try:
            return Item.from_document(known | measures)
        except (InvalidOperation, ValueError):
            return Item()


class Obstacle(BaseModel):
    """What is in the way of a price."""

    model_config = ConfigDict(extra="forbid")

    field: Word
    code: Word
    allowed: Annotated[list[Word | int], Field(max_length=1_000)] = []


class Read(BaseModel):
    """What `read_details` results in; `state` is the conversation's, as JSON text."""

    model_config = ConfigDict(extra="forbid")

    complete: bool
    over: bool
    items: Annotated[list[Wanted], Field(max_length=60)]
    text: Annotated[str, Field(max_length=20_000)]
    needs: Annotated[list[Word], Field(max_length=100)]
    actions: Annotated[list[Word], Field(max_length=100)]
    effects: Annotated[list[Word], Field(max_length=10)]
    language: Word
    state: Annotated[str, Field(max_length=STATE_CHARS)]


Items = Annotated[list[Wanted], Field(max_length=60)]
Problems = Annotated[list[Obstacle], Field(max_length=400)]


class SessionNamed(BaseModel):
    """Payload of `look_at_session`."""

    model_config = ConfigDict(extra="forbid")

    session_id: SessionId


class DetailsMissing(BaseModel):
    """Payload of `ask_for_details`: what is known of what is wanted, in the shape in which quotes
    are requested, and what is in the way of a price (`check_quote_request`); or what
    `read_details` would say to the last answer."""

    model_config = ConfigDict(extra="forbid")

    session_id: SessionId
    items: Items = []
    problems: Problems = []
    read: Read | None = None


class AnswerGiven(BaseModel):
    """Payload of `read_details`: what the customer wrote."""

    model_config = ConfigDict(extra="forbid")

    session_id: SessionId
    text: Annotated[str, Field(max_length=20_000)]


class QuoteMade(BaseModel):
    """Payload of `confirm_quote`: which quote, and what was asked for."""

    model_config = ConfigDict(extra="forbid")

    session_id: SessionId
    quote_id: Word
    items: Items = []


class Told(BaseModel):
    """Payload of `tell_customer`: one of a few messages, in the customer's language."""

    model_config = ConfigDict(extra="forbid")

    session_id: SessionId
    message: Literal["approval_asked", "approval_refused"]
    hand_over: bool = False


def look_at_session(context: TaskContext, named: SessionNamed) -> Document:
    """Whose session it is. Returns {owner, status, language, name, phone, channel}; the language is
    "es" where none is known.

    Raises:
        TaskError: `session_not_found`.
    """
    try:
        session = context.engine.sessions.get(named.session_id)
    except NotFound:
        raise TaskError("session_not_found", "There is no such conversation.") from None
    state = _dialogue(session)
    return {
        "owner": session.owner,
        "status": session.status,
        "language": state.language,
        "name": state.name,
        "phone": session.phone,
        "channel": session.channel,
    }


def ask_for_details(context: TaskContext, missing: DetailsMissing) -> Document:
    """Say in the session what is missing, or what else there is to say before it can be priced.

    Returns {said, because}: nothing is said while a person has the session, or once it is
    closed.

    Raises:
        StaleContext: the session changed meanwhile; the worker runs this again.
    """

    read = missing.read

    def worked_out(session: Session) -> Turn:
        if read is not None:
            return Turn(
                state=Dialogue.from_document(json.loads(read.state)),
                text=read.text,
                tipo="cotizacion",
                needs=tuple(read.needs),
                actions=tuple(read.actions),
            )
        catalogue = stores_of(context.engine).catalogues.current()
        wanted = tuple(each.item() for each in missing.items) or (Item(),)
        state = replace(
            _dialogue(session), items=wanted, open_fields=(), focus=0, settled=False, options=()
        )
        problems = [problem.model_dump() for problem in missing.problems]
        return ask_for_missing(state, problems, catalogue)

    hand_over = read is not None and "hand_over" in read.effects
    return _say(context, missing.session_id, worked_out, hand_over=hand_over)


def read_details(context: TaskContext, given: AnswerGiven) -> Document:
    """Understand an answer by what was asked; nothing is said, and nothing changes.

    Returns `Read` as a document: `items` to be checked and priced where it is complete; `text`
    to be said where not. It is `over` where the customer wants something else (a person, or no
    more messages) or a person has the session.
    """
    stores = stores_of(context.engine)
    catalogue = stores.catalogues.current()
    session = context.engine.sessions.get(given.session_id)
    before = _dialogue(session)
    # A quote of before is not what is talked about, so it is neither taken nor refused.
    asked = replace(before, quoted=None, quoted_items=(), quoted_before=False, settled=False)
    turn = reply(asked, understand(given.text, catalogue, asked.hint()), catalogue)
    state = replace(
        turn.state,
        quoted=before.quoted,
        quoted_items=before.quoted_items,
        quoted_before=before.quoted is not None,
    )
    if "opt_out" in turn.effects:
        context.engine.contacts.opt_out(session.address)  # at once, and harmless to repeat
    return Read(
        complete=turn.action == "request_quote",
        over=bool(turn.effects) or session.owner != BOT or session.status != OPEN,
        items=[Wanted.model_validate(each) for each in turn.items],
        text=turn.text,
        needs=list(turn.needs),
        actions=list(turn.actions),
        effects=list(turn.effects),
        language=state.language,
        state=json.dumps(state.to_document(), default=str),
    ).model_dump(exclude_none=True)


def confirm_quote(context: TaskContext, made: QuoteMade) -> Document:
    """Tell the customer the quote in the session, once; the quote then counts as sent.

    Returns {said, because}, as `ask_for_details`.

    Raises:
        StaleContext: the session changed meanwhile; the worker runs this again.
    """

    stores = stores_of(context.engine)
    quote = stores.quotes.get(made.quote_id)
    if quote is None:
        raise TaskError("quote_not_found", "There is no such quote.")
    shown = quote_shown(quote)

    def worked_out(session: Session) -> Turn:
        state = _dialogue(session)
        wanted = tuple(each.item() for each in made.items) or state.items
        return present_quote(replace(state, items=wanted, open_fields=()), shown)

    told = _say(context, made.session_id, worked_out, quote=shown)
    if told["said"]:
        stores.quotes.change(quote.id, "send")
    return told


def tell_customer(context: TaskContext, told: Told) -> Document:
    """Say one of a few things in the session; with `hand_over` a person has it from then on.

    Returns {said, because}, as `ask_for_details`.

    Raises:
        StaleContext: the session changed meanwhile; the worker runs this again.
    """

    def worked_out(session: Session) -> Turn:
        state = _dialogue(session)
        return Turn(state=state, text=say(state.language, told.message))

    return _say(context, told.session_id, worked_out, hand_over=told.hand_over)


def _say(
    context: TaskContext,
    session_id: str,
    worked_out: Callable[[Session], Turn],
    *,
    quote: Mapping[str, Any] | None = None,
    hand_over: bool = False,
) -> Document:
    engine, task = context.engine, context.task
    try:
        session = engine.sessions.get(session_id)
    except NotFound:
        raise TaskError("session_gone", "The conversation is no longer there.") from None
    source = f"{task.id}.said"
    if engine.sessions.spoken_at(session, source) is None:
        if session.owner != BOT:
            return {"said": False, "because": "person"}
        if session.status != OPEN:
            return {"said": False, "because": "closed"}
        turn = worked_out(session)
        card = None if quote is None else quote_card(quote)
        shared: Document = {"language": turn.state.language, "name": turn.state.name}
        if card is not None:
            shared["last_quote"] = {"id": card["id"], "code": card["codigo"]}
        engine.sessions.speak(
            session,
            turn.text,
            source=source,
            task_id=task.id,
            facts={
                "intent": "quote",
                "needs": list(turn.needs),
                "actions": list(turn.actions),
                "quote": card,
                "language": turn.state.language,
                "answered_by": "workflow",
            },
            changes=context.writer.changes(turn.state.to_document(), shared),
            hand_over=hand_over,
            outgoing=engine.outbox.of_message(
                session,
                turn.text,
                language=turn.state.language,
                about={"task_id": task.id, "intent": "quote", "quote": card},
            ),
        )
    engine.outbox.project(session_id)
    engine.replies.announce_news(ordering_key(session_id))
    return {"said": True, "because": None}


def _dialogue(session: Session) -> Dialogue:
    """Where the conversation stands."""
    kept = session.of_agent(AGENT_ID)
    if kept:
        return Dialogue.from_document(kept)
    shared = session.context["shared"]
    return Dialogue(language=shared.get("language") or "es", name=shared.get("name"))


def quote_shown(quote: Quote) -> Document:
    """What is told of a stored quote, in the shape in which the quote agent tells it."""
    return {
        "quote_id": quote.id,
        "code": quote.code,
        "product": quote.product,
        "description": quote.description,
        "items": list(quote.items),
        "unit_price_per_m2": quote.unit_price_per_m2,
        "total": str(quote.total),
        "tax": str(quote.tax),
        "currency": quote.currency,
        "valid_until": quote.valid_until.isoformat(),
    }


def quote_card(quote: Mapping[str, Any]) -> Document:
    """A quote as front ends show it; amounts are JSON numbers, as they expect."""
    unit = quote["unit_price_per_m2"]
    return {
        "id": quote["quote_id"],
        "codigo": quote["code"],
        "producto": quote["product"],
        "descripcion": quote["description"],
        "total": float(quote["total"]),
        "precio_m2": None if unit is None else float(unit),
        "moneda": quote["currency"],
        "impuesto": float(quote["tax"]),
        "valido_hasta": quote["valid_until"],
        "items": quote["items"],
    }
