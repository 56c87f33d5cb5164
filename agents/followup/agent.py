"""The follow-up agent: finds customers who fell silent, and writes to them."""

import datetime as dt
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agents.followup.due import find_due
from agents.messages import generate_message
from agents.stores import prepare, stores_of
from orchestrator import Agent, TaskContext

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


agent.handles("generate_message", needs=["message_generation"])(generate_message)

agent.every(60, "find_due_followups")
