"""The follow-up agent: finds customers who fell silent, and sends what leaves the desk."""

import datetime as dt
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agents.followup.due import find_due
from agents.messages import generate_message
from agents.stores import prepare, stores_of
from orchestrator import Agent, TaskContext, TaskError
from orchestrator.errors import NotFound

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
    setup=prepare,
    where={"webhook_integration": lambda settings: settings.n8n_webhook_secret is not None},
)


class Silence(BaseModel):
    """Payload of `find_due_followups`, in hours.

    Sessions are due from `silence_h` to `forget_h` after they were last touched; of those at
    most `limit` are looked at.
    """

    model_config = ConfigDict(extra="forbid")

    silence_h: float = Field(24.0, gt=0, le=24 * 365)
    forget_h: float = Field(24.0 * 15, gt=0, le=24 * 365)
    limit: int = Field(200, ge=1, le=1000)


@agent.handles("find_due_followups", needs=["follow_up"])
def find_due_followups(context: TaskContext, payload: Silence) -> dict[str, Any]:
    """Find the sessions that are due; nothing is sent.

    Returns {due: [{session_id, kind, quote_code, silent_h}], looked_at, more}: longest
    silence first; `more` is true when the limit left some sessions out.
    """
    now = context.engine.clock.now()
    silence = dt.timedelta(hours=payload.silence_h)
    sessions = context.engine.sessions.idle_between(
        now - dt.timedelta(hours=payload.forget_h), now - silence, payload.limit
    )
    quotes = stores_of(context.engine).quotes.newest_of([session.id for session in sessions])
    due = find_due(sessions, quotes, now=now, silence=silence)
    return {
        "due": [
            {
                "session_id": each.session,
                "kind": each.kind,
                "quote_code": each.quote,
                "silent_h": round(each.silent.total_seconds() / 3600, 2),
            }
            for each in due
        ],
        "looked_at": len(sessions),
        "more": len(sessions) == payload.limit,
    }


class Delivery(BaseModel):
    """Payload of `deliver`: an entry of the outbox, and which of its rounds."""

    model_config = ConfigDict(extra="forbid")

    entry_id: str = Field(min_length=1, max_length=200)
    round: int = Field(ge=0)


# Asked for by the outbox only, which gives it the recipient as its ordering key.
@agent.handles("deliver", public=False)
def deliver(context: TaskContext, payload: Delivery) -> dict[str, Any]:
    """Send an entry of the outbox by its channel; returns {state, channel, reason}.

    Raises:
        RetryLater: it was surely not taken, or may be repeated safely.
    """
    outbox = context.engine.outbox
    channels = stores_of(context.engine).channels
    try:
        channel = channels.get(outbox.get(payload.entry_id).channel)
        entry = outbox.deliver(payload.entry_id, payload.round, channel)
    except NotFound:
        raise TaskError("entry_gone", "The entry was erased.") from None
    return {
        "state": entry.state.value,
        "channel": entry.channel,
        "reason": (entry.reason or {}).get("code"),
    }


agent.handles("generate_message", needs=["message_generation"])(generate_message)

agent.every(60, "find_due_followups")
