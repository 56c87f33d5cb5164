"""The conversation agent: a customer's message in, a reply committed to the session out.

The thin shell around pure parts. A message is understood (`understanding`), the dialogue
decides (`dialogue`), and one compare-and-set on the session makes the turn count. A turn
that needs a price hands over to the quote agent before that and is worked out again when
the quote is there, from what was decided then: nothing is committed in between.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.catalogue import Language
from agents.conversation.details import (
    ask_for_details,
    confirm_quote,
    look_at_session,
    quote_card,
    read_details,
    tell_customer,
)
from agents.conversation.dialogue import (
    State,
    Turn,
    begin_again,
    present_quote,
    quote_not_settled,
    quote_refused,
    reply,
    with_standing,
)
from agents.conversation.objections import objections
from agents.conversation.second_reading import read_again
from agents.conversation.understanding import understand
from agents.conversation.wording import say
from agents.language_model import CAPABILITY as LLM
from agents.messages import INTENTS
from agents.messages import generate_message as write_message
from agents.product_answers import answer_product_question as answer_from_catalogue
from agents.quotes import QuoteNotFound
from agents.rewording import reworded
from agents.stores import prepare, stores_of
from orchestrator import Agent, HandOver, Request, TaskContext, TaskError
from orchestrator.context import Burst, Session
from orchestrator.coordinator import ChildResult

agent = Agent(
    role="conversation",
    name="Conversation agent",
    capabilities=[
        "nlp",
        "intent_classification",
        "entity_extraction",
        "context_management",
        "multi_turn_conversation",
        "product_knowledge",
        "message_generation",
    ],
    slots=10,
    shares=["language", "name", "last_quote", "objections"],
    setup=prepare,
    where={LLM: lambda settings: settings.llm_configured},
)


class CustomerMessage(BaseModel):
    """Payload of `process_message`: what a customer said in a session."""

    model_config = ConfigDict(extra="forbid")

    session_id: Annotated[str, Field(min_length=1, max_length=200)]
    message: Annotated[str, Field(min_length=1, max_length=10_000)]
    phone: Annotated[str, Field(max_length=40)] | None = None
    channel: Annotated[str, Field(max_length=40)] = "web"
    language: Language | None = None


class CustomerMedia(BaseModel):
    """Payload of `process_media`: what a customer sent that is not words."""

    model_config = ConfigDict(extra="forbid")

    session_id: Annotated[str, Field(min_length=1, max_length=200)]
    medium: Literal[
        "image",
        "video",
        "audio",
        "voice",
        "document",
        "sticker",
        "location",
        "contacts",
        "reaction",
        "unsupported",
    ]
    phone: Annotated[str, Field(max_length=40)] | None = None
    channel: Annotated[str, Field(max_length=40)] = "web"


# Asked for by the front door only, which gives it the session as its ordering key.
@agent.handles("process_message", needs=["nlp", "context_management"], public=False)
def process_message(context: TaskContext, said: CustomerMessage) -> Any:
    """Answer a message, and those that came with it; returns what the front door needs.

    {text, intent, tipo, confidence, needs, actions, quote, language, answered_by, turn_id};
    `answered_by` is "language_model" where one was of use, "workflow" where a run of one will
    answer, else "built_in". `quote` is null or
    {id, codigo, producto, descripcion, total, precio_m2, moneda, impuesto, valido_hasta, items};
    `turn_id` is the task whose turn the reply is of, the same for all that it answers. While a
    person has the session nothing is said: `text` is empty and `owner` "human".

    Raises:
        StaleContext: the session changed meanwhile; the worker runs this again.
    """
    _start_workflows(context, said)
    burst = context.engine.sessions.begin(said.session_id, context.task)
    if burst.reply is not None:
        return _answered(context, burst)
    if burst.session.owner != "bot":
        return _leave_to_person(context, burst)
    if context.phase and context.memory["kept"] == burst.session.of_agent(agent.id):
        turn, quote = _with_answer(context, Turn(**_restored(context.memory["turn"])))
        return _commit(context, burst, turn, quote, context.memory["by_model"])
    if context.engine.workflows.is_taken(burst.session.id):
        return _leave_to_run(context, burst)
    turn, by_model = _worked_out(context, burst, said)
    if turn.action == "request_quote":
        return _hand_over(_quote_request(burst.session, said, turn), burst, turn, by_model)
    if turn.action in ("accept_quote", "reject_quote"):
        wanted = Request(type=turn.action, payload={"quote_id": turn.quote_id})
        return _hand_over(wanted, burst, turn, by_model)
    turn, worded_by_model = _worded(context, turn)
    return _commit(context, burst, turn, None, by_model or worded_by_model)


def _start_workflows(context: TaskContext, said: CustomerMessage) -> None:
    """A message may start runs; once, however often its task is run."""
    facts = {"session_id": said.session_id, "channel": said.channel, "task_id": context.task.id}
    context.engine.triggers.happened("message_received", context.task.id, facts)


def _tell_workflows(context: TaskContext, burst: Burst) -> None:
    """What was said may be what runs wait for. After the turn's commit, so that nothing that
    they say comes before it, and again by whoever finds it committed."""
    if burst.messages:
        facts = {"session_id": burst.session.id, "text": burst.text}
        context.engine.workflows.message_received(
            burst.session.id, context.task.id, burst.messages[-1].created_at, facts
        )


agent.handles("answer_product_question", needs=["product_knowledge"])(answer_from_catalogue)


# Asked for by the front door only, with the session as its ordering key.
@agent.handles("process_media", needs=["context_management"], public=False)
def process_media(context: TaskContext, sent: CustomerMedia) -> Any:
    """Answer what is not words: politely, in the customer's language, with the conversation
    left where it was. Returns what `process_message` returns.

    Raises:
        StaleContext: the session changed meanwhile; the worker runs this again.
    """
    burst = context.engine.sessions.begin(sent.session_id, context.task)
    if burst.reply is not None:
        return _answered(context, burst)
    if burst.session.owner != "bot":
        return _leave_to_person(context, burst)
    kept = burst.session.of_agent(agent.id)
    state = State.from_document(kept) if kept else State(language="es")
    text = say(state.language, f"medium_{sent.medium}")
    turn = Turn(text=text, tipo="general", confidence=1.0, state=state)
    return _commit(context, burst, turn, None, by_model=False)


# Asked for by workflows only: what they say in a session is no front end's to choose.
_FOR_WORKFLOWS: dict[str, Any] = {"needs": ["context_management"], "public": False}
agent.handles("look_at_session", **_FOR_WORKFLOWS)(look_at_session)
agent.handles("ask_for_details", **_FOR_WORKFLOWS)(ask_for_details)
agent.handles("read_details", **_FOR_WORKFLOWS)(read_details)
agent.handles("confirm_quote", **_FOR_WORKFLOWS)(confirm_quote)
agent.handles("tell_customer", **_FOR_WORKFLOWS)(tell_customer)

agent.handles("generate_message", needs=["message_generation"])(write_message)


def _answered(context: TaskContext, burst: Burst) -> Any:
    """What an earlier run, or the turn that covered the message, has committed."""
    if burst.session.outgoing:
        context.engine.outbox.project(burst.session.id)
    _note_sent(context, burst.reply)
    _tell_workflows(context, burst)
    return burst.reply


def _note_sent(context: TaskContext, committed: Any) -> None:
    """The customer has the quote of a committed reply; harmless to repeat."""
    if quote := committed.get("quote"):
        with suppress(QuoteNotFound):  # erased since
            stores_of(context.engine).quotes.change(quote["id"], "send")


def _leave_to_person(context: TaskContext, burst: Burst) -> Any:
    """The messages count as received, and the bot says nothing."""
    language = burst.session.context["shared"].get("language")
    silence = {"text": "", "owner": "human", "language": language, "turn_id": context.task.id}
    committed = context.engine.sessions.commit(burst, writer=context.writer, reply=silence)
    _tell_workflows(context, burst)
    return committed


def _leave_to_run(context: TaskContext, burst: Burst) -> Any:
    """A run of a workflow has asked, and answers; the customer is told that it was heard."""
    kept = burst.session.of_agent(agent.id)
    state = State.from_document(kept) if kept else State()
    turn = Turn(text=say(state.language, "left_to_run"), state=state)
    return _commit(context, burst, turn, None, by_model=False, by_run=True)


def _worked_out(context: TaskContext, burst: Burst, said: CustomerMessage) -> tuple[Turn, bool]:
    """The turn, and whether a language model read the messages for it."""
    stores = stores_of(context.engine)
    catalogue = stores.catalogues.current()
    kept = burst.session.of_agent(agent.id)
    state = State.from_document(kept) if kept else _remembered(context, burst.session, said)
    if state.quoted is not None:
        quote = stores.quotes.get(state.quoted.id)
        state = state if quote is None else with_standing(state, quote.state.value)
    understood = understand(burst.text, catalogue, state.hint())
    again = read_again(stores.model, burst.text, understood, state.hint(), catalogue)
    said_so = objections(again or understood, burst.text)
    state = replace(state, objections=tuple(dict.fromkeys((*state.objections, *said_so))))
    return reply(state, again or understood, catalogue), again is not None


def _remembered(context: TaskContext, session: Session, said: CustomerMessage) -> State:
    """How a conversation begins: with what the customer's last one came to, if it is known."""
    earlier = context.engine.sessions.earlier_of(session)
    kept = {} if earlier is None else earlier.of_agent(agent.id)
    if not kept:
        return State(language=said.language or "es")
    return begin_again(State.from_document(kept), said.language)


def _worded(context: TaskContext, turn: Turn) -> tuple[Turn, bool]:
    """The turn in a language model's words, if there is one and they say the same."""
    stores = stores_of(context.engine)
    if not context.engine.settings.llm_wording or not turn.text:
        return turn, False
    catalogue = stores.catalogues.current()
    text = reworded(stores.model, turn.text, catalogue, turn.state.language)
    return (turn, False) if text is None else (replace(turn, text=text), True)


def _quote_request(session: Session, said: CustomerMessage, turn: Turn) -> Request:
    return Request(
        type="create_quote",
        payload={
            "session_id": session.id,
            "customer": {"name": turn.state.name, "phone": said.phone or session.phone},
            "language": turn.state.language,
            "items": list(turn.items),
            "supersedes": turn.quote_id,
        },
    )


def _hand_over(wanted: Request, burst: Burst, turn: Turn, by_model: bool) -> HandOver:
    # What the turn was worked out from: whoever finds it changed works it out again.
    kept = burst.session.of_agent(agent.id)
    memory = {"turn": _kept(turn), "kept": kept, "by_model": by_model}
    return HandOver([wanted], memory=memory)


def _with_answer(context: TaskContext, turn: Turn) -> tuple[Turn, dict[str, Any] | None]:
    """The turn that waited for the quote agent, worded now that it has answered."""
    answer: ChildResult = context.children[0]
    if turn.action != "request_quote":
        if answer.completed:
            return turn, None
        error = answer.error or {}
        standing = (error.get("facts") or {}).get("standing", error.get("code", ""))
        return quote_not_settled(turn.state, standing), None
    if answer.completed:
        return present_quote(turn.state, answer.result), quote_card(answer.result)
    error = answer.error or {}
    if error.get("code") != "quote_refused":
        raise TaskError("quote_not_made", "The quote could not be made.", because=error.get("code"))
    catalogue = stores_of(context.engine).catalogues.current()
    return quote_refused(turn.state, error["facts"]["problems"], catalogue), None


def _commit(
    context: TaskContext,
    burst: Burst,
    turn: Turn,
    quote: dict[str, Any] | None,
    by_model: bool,
    by_run: bool = False,
) -> Any:
    session = burst.session
    hand_over = "hand_over" in turn.effects
    answer = {
        "text": turn.text,
        "intent": INTENTS[turn.tipo],
        "tipo": turn.tipo,
        "confidence": round(turn.confidence, 2),
        "needs": list(turn.needs),
        "actions": list(turn.actions),
        "quote": quote,
        "language": turn.state.language,
        "answered_by": _author(by_model, by_run),
        "owner": "human" if hand_over else "bot",
        "turn_id": context.task.id,
    }
    if "opt_out" in turn.effects:
        context.engine.contacts.opt_out(session.address)  # at once, and harmless to repeat
    shared: dict[str, Any] = {"language": turn.state.language, "name": turn.state.name}
    if turn.state.objections:
        shared["objections"] = list(turn.state.objections)
    quoted, name = turn.state.quoted, turn.state.name
    if quote is None and quoted and name and name != session.context["shared"].get("name"):
        # Asked for with the quote, the name comes after it; before the commit, for a repetition.
        stores_of(context.engine).quotes.name_customer(quoted.id, name)
    if quote is not None:
        shared["last_quote"] = {"id": quote["id"], "code": quote["codigo"]}
    outgoing = context.engine.outbox.of_message(
        session,
        turn.text,
        language=turn.state.language,
        about={"task_id": context.task.id, "intent": answer["intent"], "quote": quote},
    )
    committed = context.engine.sessions.commit(
        burst,
        writer=context.writer,
        own=turn.state.to_document(),
        shared=shared,
        reply=answer,
        intent=turn.tipo,
        hand_over=hand_over,
        outgoing=outgoing,
    )
    if outgoing:
        context.engine.outbox.project(session.id)
    _note_sent(context, committed)
    _tell_workflows(context, burst)
    return committed


def _author(by_model: bool, by_run: bool) -> str:
    if by_run:
        return "workflow"
    return "language_model" if by_model else "built_in"


def _kept(turn: Turn) -> dict[str, Any]:
    return vars(turn) | {"state": turn.state.to_document(), "items": list(turn.items)}


def _restored(document: dict[str, Any]) -> dict[str, Any]:
    return document | {
        "state": State.from_document(document["state"]),
        **{name: tuple(document[name]) for name in ("needs", "actions", "items", "effects")},
    }
