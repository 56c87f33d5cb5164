"""The follow-up agent: writes to customers who fell silent, and sends what leaves the desk."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from agents.catalogue import Language
from agents.delivery import Delivery, deliver_by
from agents.followup.looking import Look
from agents.followup.rules import load_rules
from agents.followup.sending import Said, Sending
from agents.followups import HOLDING, RESOURCE
from agents.language_model import CAPABILITY as LLM
from agents.messages import MAX_CUSTOM_CHARS, MessageKind, generate_message
from agents.stores import prepare, stores_of
from orchestrator import Agent, TaskContext, TaskError
from orchestrator.engine import Engine
from orchestrator.errors import NotFound


def open_desk(engine: Engine) -> None:
    """Stores; and rules that cannot be used end the start."""
    load_rules(engine.settings.followups_file)
    prepare(engine)


agent = Agent(
    role="followup",
    name="Follow-up agent",
    capabilities=[
        "follow_up",
        "message_generation",
        "scheduling",
        "whatsapp_integration",
        "n8n_integration",
    ],
    slots=3,
    setup=open_desk,
    where={
        "webhook_integration": lambda settings: settings.n8n_webhook_secret is not None,
        "local_integration": lambda settings: True,
        LLM: lambda settings: settings.llm_configured,
    },
    workflows=Path(__file__).with_name("workflows"),
    resources=[RESOURCE],
    holdings=[HOLDING],
)

Id = Annotated[str, Field(min_length=1, max_length=200)]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pass(_Payload):
    """Payload of `find_due_followups`: each rule looks at about `limit` conversations.

    With `dry_run` nothing is planned: the answer says what the rules find.
    """

    limit: int = Field(2_000, ge=1, le=100_000)
    dry_run: bool = False


class Wanted(_Payload):
    """Payload of `schedule_followup`. Without `at` it goes out as soon as it may; a "custom"
    message says `text`."""

    session_id: Id
    message: MessageKind
    at: AwareDatetime | None = None
    text: str | None = Field(None, min_length=1, max_length=MAX_CUSTOM_CHARS)
    priority: int = Field(100, ge=0, le=100)
    by: Id = "operator"

    @model_validator(mode="after")
    def _says_something(self) -> "Wanted":
        if (self.message == "custom") != (self.text is not None):
            raise ValueError("a custom message, and no other, has a text")
        return self


class Named(_Payload):
    """Payload of what is done with a follow-up that there is."""

    followup_id: Id


class Unwanted(Named):
    """Payload of `cancel_followup`."""

    by: Id = "operator"


class Written(Named):
    """Payload of `send_followup`: what `generate_message` wrote."""

    text: str = Field(min_length=1, max_length=4_000)
    kind: MessageKind
    language: Language
    values: list[Annotated[str, Field(max_length=MAX_CUSTOM_CHARS)]] = Field([], max_length=10)


# All but `generate_message` are asked for by beat, the workflow and the front door's operator
# routes only: they tell of conversations, or write in them.
@agent.handles("find_due_followups", needs=["follow_up"], public=False)
def find_due_followups(context: TaskContext, payload: Pass) -> dict[str, Any]:
    """Plan the follow-ups that have become due, and start their runs.

    Returns {planned, started, looked_at}; of a dry run {followups: [{session_id, rule, message,
    quote_code, verdict, code, until, silent_h}]}: what would go out, when what waits would, and
    why not for the rest.
    """
    return run_pass(context.engine, payload)


def run_pass(engine: Engine, payload: Pass) -> dict[str, Any]:
    """What `find_due_followups` does; for the command line as well."""
    sending = Sending(engine)
    if not payload.dry_run:
        return sending.find(payload.limit)
    now = engine.clock.now()
    return {"followups": [_shown(look, now) for look in sending.would(payload.limit)]}


@agent.handles("schedule_followup", needs=["scheduling"], public=False)
def schedule_followup(context: TaskContext, wanted: Wanted) -> dict[str, Any]:
    """Plan a follow-up by hand: all but the rules' own conditions hold for it.

    Returns {followup_id, state, due_at}.

    Raises:
        TaskError: `session_not_found`; or `no_quote`, where the message is about one.
    """
    engine = context.engine
    try:
        session = engine.sessions.get(wanted.session_id)
    except NotFound:
        raise TaskError("session_not_found", "There is no such conversation.") from None
    quote = stores_of(engine).quotes.newest_of([session.id]).get(session.id)
    if quote is None and wanted.message.startswith("quote"):
        raise TaskError("no_quote", "No quote was made in this conversation.")
    followup = Sending(engine).schedule(
        f"by_hand:{context.task.id}",
        session,
        wanted.message,
        wanted.at or engine.clock.now(),
        text=wanted.text,
        priority=wanted.priority,
        by=wanted.by,
    )
    return {
        "followup_id": followup.id,
        "state": followup.state.value,
        "due_at": followup.due_at.isoformat(),
    }


@agent.handles("cancel_followup", needs=["scheduling"], public=False)
def cancel_followup(context: TaskContext, unwanted: Unwanted) -> dict[str, Any]:
    """Do not send a follow-up. Returns {followup_id, state}: one that has gone out stays "sent".

    Raises:
        TaskError: `followup_not_found`.
    """
    try:
        return cancelled(context.engine, unwanted)
    except NotFound:
        raise TaskError("followup_not_found", "There is no such follow-up.") from None


def cancelled(engine: Engine, unwanted: Unwanted) -> dict[str, Any]:
    """What `cancel_followup` does; for the command line as well."""
    followup = Sending(engine).cancel(unwanted.followup_id, unwanted.by)
    return {"followup_id": followup.id, "state": followup.state.value}


@agent.handles("check_followup", needs=["follow_up"], public=False)
def check_followup(context: TaskContext, named: Named) -> dict[str, Any]:
    """Whether a planned follow-up goes out now. Returns {verdict, code, until, kind, text}."""
    return Sending(context.engine).check(named.followup_id)


@agent.handles("send_followup", needs=["follow_up"], public=False)
def send_followup(context: TaskContext, written: Written) -> dict[str, Any]:
    """Say a follow-up in its conversation, once. Returns what `check_followup` does; its verdict
    is "sent" where it has been said.

    Raises:
        StaleContext: the session keeps changing; the worker runs this again.
    """
    said = Said(written.text, written.kind, written.language, written.values)
    return Sending(context.engine).send(written.followup_id, context.task.id, said)


@agent.handles("measure_followup", needs=["follow_up"], public=False)
def measure_followup(context: TaskContext, named: Named) -> dict[str, Any]:
    """Note what came of a follow-up. Returns {over, effect}."""
    return Sending(context.engine).measure(named.followup_id)


# Asked for by the outbox only, which gives it the recipient as its ordering key.
@agent.handles("deliver", public=False)
def deliver(context: TaskContext, payload: Delivery) -> dict[str, Any]:
    """Send an entry of the outbox; see `deliver_by`."""
    return deliver_by(stores_of(context.engine).channels, context, payload)


agent.commands = {
    "find_due_followups": lambda engine, asked: run_pass(engine, Pass.model_validate(asked)),
    "cancel_followup": lambda engine, asked: cancelled(engine, Unwanted.model_validate(asked)),
}

agent.handles("generate_message", needs=["message_generation"])(generate_message)

agent.every(60, "find_due_followups")


def _shown(look: Look, now: dt.datetime) -> dict[str, Any]:
    until = look.decision.until
    verdict: Literal["send", "wait", "skip"] = look.decision.verdict
    return {
        "session_id": look.session.id,
        "rule": look.rule.id,
        "message": look.rule.message,
        "quote_code": None if look.quote is None else look.quote.code,
        "verdict": verdict,
        "code": look.decision.code,
        "until": None if until is None else until.isoformat(),
        "silent_h": round((now - look.session.active_at).total_seconds() / 3600, 2),
    }
