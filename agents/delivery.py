"""The `deliver` task: whichever agent has a channel sends what leaves by it."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator import TaskContext, TaskError
from orchestrator.errors import NotFound
from orchestrator.outbox import Channel


class Delivery(BaseModel):
    """Payload of `deliver`: an entry of the outbox, and which of its rounds."""

    model_config = ConfigDict(extra="forbid")

    entry_id: str = Field(min_length=1, max_length=300)
    round: int = Field(ge=0)


def deliver_by(
    channels: Mapping[str, Channel], context: TaskContext, payload: Delivery
) -> dict[str, Any]:
    """Send an entry by its channel, where there is one; returns {state, channel, reason}.

    Raises:
        RetryLater: it was surely not taken, or may be repeated safely.
    """
    outbox = context.engine.outbox
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
