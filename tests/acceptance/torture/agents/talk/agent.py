"""An agent under test: answers the messages of sessions, each turn with one commit."""

import os
import signal
import time
from typing import Any

from pydantic import BaseModel

from orchestrator import Agent, HandOver, Request, TaskContext
from orchestrator.context import Burst
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
    """Count the messages of the session; the reply tells the place of each that it answers.

    Every second session has its messages answered one by one, the others in bursts.
    """
    task, outbox, sessions = context.task, context.engine.outbox, context.engine.sessions
    key, kind, pause_ms = said.message.split()
    witness.began(key, task=task.id, phase=context.phase, failures=task.failures)
    if key.endswith("/1") and not task.handover and session_number(key) % 2:
        sessions.set_on_busy(said.session_id, "enqueue")
    burst = sessions.begin(said.session_id, task)
    reply = burst.reply
    if reply is None:
        if kind == "chat-asking" and context.phase == 0:
            part = {"key": f"{key}/part", "pause_ms": int(pause_ms)}
            return HandOver([Request(type="part", payload=part)])
        time.sleep(int(pause_ms) / 1000)
        if kind == "chat-poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "chat-stumbling" and task.failures == 0:
            raise RuntimeError("as planned")
        reply = commit(context, burst)
    if burst.session.outgoing:
        outbox.project(burst.session.id)
    witness.effect(key, task=task.id, place=reply["places"][key], text=reply["text"])
    return reply | {"attempt": task.attempts}


def commit(context: TaskContext, burst: Burst) -> Any:
    """Give each message of the burst its place, and let out what they send."""
    last = burst.session.of_agent(agent.id).get("place", 0)
    messages = [message.payload["message"].split() for message in burst.messages]
    places = {key: last + n for n, (key, _, _) in enumerate(messages, start=1)}
    # One recipient for each session: its effects leave in order.
    outgoing = [
        Outgoing(channel, burst.session.id, {"key": f"{key}/{channel}"})
        for key, kind, _ in messages
        for channel in (SURE, BLIND)
        if kind == "chat-sending"
    ]
    reply = context.engine.sessions.commit(
        burst,
        writer=context.writer,
        own={"place": last + len(messages)},
        reply={"text": ", ".join(f"{key} is {n}" for key, n in places.items()), "places": places},
        intent="general",
        outgoing=outgoing,
    )
    if outgoing:
        context.engine.outbox.project(burst.session.id)
    return reply


def session_number(key: str) -> int:
    """Of "s7-12/3", 12."""
    return int(key.partition("/")[0].partition("-")[2])
