"""An agent under test: answers the messages of sessions, each with one commit."""

import os
import signal
import time
from typing import Any

from pydantic import BaseModel

from orchestrator import Agent, HandOver, Request, TaskContext
from orchestrator.outbox import Outgoing
from torture import witness
from torture.load import BLIND, SURE

agent = Agent(role="talk", name="Talks", capabilities=["talking"], slots=6)


class Message(BaseModel):
    """What the front door gives with a chat message; its text is "KEY KIND PAUSE_MS"."""

    session_id: str
    message: str
    phone: str | None = None
    channel: str = "web"


@agent.handles("process_message", needs=["talking"], public=False)
def process_message(context: TaskContext, said: Message) -> Any:
    """Count the messages of the session; the reply tells this one's place."""
    task, sessions = context.task, context.engine.sessions
    key, kind, pause_ms = said.message.split()
    witness.began(key, task=task.id, phase=context.phase, failures=task.failures)
    session = sessions.get(said.session_id)
    reply = session.reply_to(task.id)
    if reply is None:
        if kind == "chat-asking" and context.phase == 0:
            part = {"key": f"{key}/part", "pause_ms": int(pause_ms)}
            return HandOver([Request(type="part", payload=part)])
        time.sleep(int(pause_ms) / 1000)
        if kind == "chat-poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "chat-stumbling" and task.failures == 0:
            raise RuntimeError("as planned")
        place = session.of_agent(agent.id).get("place", 0) + 1
        reply = sessions.commit(
            session,
            task,
            agent_id=agent.id,
            state={"place": place},
            shared={},
            reply={"text": f"{key} is number {place}", "place": place},
            intent="general",
            outgoing=[
                # One recipient for each session: its effects leave in order.
                Outgoing(channel, said.session_id, {"key": f"{key}/{channel}"})
                for channel in (SURE, BLIND)
                if kind == "chat-sending"
            ],
        )
    witness.effect(key, task=task.id, place=reply["place"], text=reply["text"])
    return reply | {"attempt": task.attempts}
