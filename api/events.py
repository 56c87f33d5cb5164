"""Server-sent events: what happens to a task or a session, as it happens.

Every event that is a happening has a number, which rises within its stream and is made from
what the store holds: a client that says the last one that it saw (`Last-Event-ID`) is sent all
that came after it. Names are those of AG-UI. What is a state and not a happening (who owns a
session, whether it is worked on) has no number and is sent anew at each connect.

A stream holds a thread of the front door. So there is a cap on how many are open, and a client
that is gone or does not read gives its place back within a heartbeat.
"""

import contextlib
import datetime as dt
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api import chat, schemas
from api.auth import Access, Caller
from api.errors import TooManyStreams
from api.inputs import last_event_id
from api.promptness import prompt
from orchestrator.advance import MAX_VISITS, RunState
from orchestrator.engine import Engine
from orchestrator.errors import NotFound, StoreUnavailable, TaskNotFound
from orchestrator.events import SessionNews, SessionState, Watch
from orchestrator.logs import log
from orchestrator.tasks import FINAL, Document, State, Task
from orchestrator.workflows import StoredRun

RETRY_MS = 2000
EVENTS = {"description": "Server-sent events, each with `event`, JSON in `data`, and mostly `id`."}
# A timeline's event and a session's message become several events each: the number of the one
# times this, plus their places.
PARTS = 10
MESSAGE_PARTS = 3
# A run's fence becomes several: visits that were over with it, those that began (and were over
# at once), the end.
FENCE_PARTS = 3 * MAX_VISITS + 1
# In the timeline: what ends a run of the task's handler.
ENDS_A_STEP = {"waiting", "retried", "handed_back", "taken_back", *FINAL}
# AG-UI knows no persons among the assistants; `author` tells.
ROLES = {"customer": "user", "assistant": "assistant", "person": "assistant"}


@dataclass(frozen=True)
class Event:
    """One event of a stream; without a number where it is a state."""

    name: str
    facts: Document
    number: int | None = None

    def encode(self) -> str:
        """As it goes over the wire."""
        numbered = "" if self.number is None else f"id: {self.number}\n"
        told = json.dumps({"type": self.name} | self.facts, ensure_ascii=False, default=_plain)
        return f"{numbered}event: {self.name}\ndata: {told}\n\n"


@dataclass(frozen=True)
class Batch:
    """What there is to send now; `ended` where nothing will follow."""

    events: list[Event]
    ended: bool
    more: bool = False


# What follows after an event number (None: from the start); remembers nothing itself.
Read = Callable[[int | None], Batch]


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """`/api/tasks/{id}/events` and `/api/sessions/{id}/events`."""
    events = APIBlueprint("events", __name__, tag="Events")
    places = Places(engine.settings.max_streams)
    described: dict[str, Any] = {
        "responses": {
            200: {
                "description": "The stream, until its end event or until either side closes it.",
                "content": {"text/event-stream": {"schema": EVENTS}},
            },
            204: "Nothing follows what the client has seen: do not connect again.",
            400: "`Last-Event-ID` is not a number.",
            401: "Credentials are missing or unknown.",
            404: "There is no such thing, or none that this caller may see.",
            503: "As many streams are open as this front door keeps, or MongoDB is away.",
        }
    }

    operating = {"responses": described["responses"] | {403: "Only the operator may."}}

    @events.get("/api/tasks/<task_id>/events")
    @access.customer
    @events.input(schemas.Resuming, location="query")
    @events.doc(summary="Watch a task", **described)
    def of_task(task_id: str, caller: Caller, query_data: schemas.Resuming) -> Any:
        """What has happened to a task and what happens, to `RUN_FINISHED` or `RUN_ERROR`.

        `RUN_STARTED` when it was accepted, a step for each time that a worker runs it, the
        reply's `TEXT_MESSAGE_*` where there is one, and `CUSTOM` (named `task.` and what
        happened) for all else. A comment comes as heartbeat every 15 s.
        """

        def read(after: int | None) -> Batch:
            task = engine.events.task(watch)
            if not caller.may_see(task.caller):
                raise TaskNotFound()
            return Batch(task_events(task, after or 0), task.state.final)

        after = last_event_id(request, query_data.last_event_id)
        watch = engine.events.watch_task(task_id)
        return _stream(engine, places, watch, read, after)

    @events.get("/api/sessions/<session_id>/events")
    @access.customer
    @events.input(schemas.Resuming, location="query")
    @events.doc(summary="Watch a session", **described)
    def of_session(session_id: str, caller: Caller, query_data: schemas.Resuming) -> Any:
        """Messages of a session as they come, and its state, until it is closed.

        A message is `TEXT_MESSAGE_START`, `_CONTENT` and `_END`; its `author` is `customer`,
        `assistant` or `person`. `STATE_DELTA` tells owner, status, and whether the assistant is
        working. The end is `CUSTOM` named `session.closed`. Who does not say where to go on
        gets the newest 50 messages first. A comment comes as heartbeat every 15 s.
        """
        told: list[SessionState] = []

        def read(after: int | None) -> Batch:
            # A message that was sent in part is read again.
            number = None if after is None else max((after - MESSAGE_PARTS + 1) // PARTS, 0)
            news = engine.events.session(watch, number)
            events = session_events(news, after or 0, told[-1] if told else None)
            told[:] = [news.state]
            return Batch(events, news.state.status == "closed" and not news.more, news.more)

        after = last_event_id(request, query_data.last_event_id)
        with prompt(engine):
            if not caller.may_see(engine.sessions.get(session_id).caller):
                raise NotFound("No such session")
        watch = engine.events.watch_session(session_id)
        return _stream(engine, places, watch, read, after)

    @events.get("/api/workflows/runs/<run_id>/events")
    @access.operator
    @events.input(schemas.Resuming, location="query")
    @events.doc(summary="Watch a run", **operating)
    def of_run(run_id: str, caller: Caller, query_data: schemas.Resuming) -> Any:
        """What has happened to a workflow run and what happens, to `RUN_FINISHED` or `RUN_ERROR`.

        `STEP_STARTED` and `STEP_FINISHED` for each visit of a step; its `state` tells how it
        ended. A comment comes as heartbeat every 15 s.
        """

        def read(after: int | None) -> Batch:
            stored = engine.events.run(watch, engine.workflows)
            return Batch(run_events(stored, after or 0), stored.run.state.final)

        after = last_event_id(request, query_data.last_event_id)
        watch = engine.events.watch_run(run_id)
        return _stream(engine, places, watch, read, after)

    return events


class Places:
    """The streams that may be open at once."""

    def __init__(self, limit: int) -> None:
        self._free = threading.BoundedSemaphore(limit)

    def take(self) -> None:
        """Take a place.

        Raises:
            TooManyStreams: there is none.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyStreams()

    def give_back(self) -> None:
        """Free a place that was taken."""
        self._free.release()


def _stream(
    engine: Engine, places: Places, watch: Watch, read: Read, after: int | None
) -> Response:
    """The response to a watcher; from here on the watch and a place are its own."""
    began = time.monotonic()
    taken = False

    def end() -> None:
        engine.events.unwatch(watch)
        if taken:
            places.give_back()
            engine.metrics.streams.dec()
            took_s = round(time.monotonic() - began, 1)
            log.info("stream.ended", kind=watch.kind, duration_s=took_s)

    try:
        with prompt(engine):
            first = read(after)
        if first.ended and all(event.number is None for event in first.events):
            end()
            return Response(status=204)
        places.take()
        engine.metrics.streams.inc()
        taken = True
    except BaseException:
        end()
        raise
    line = Line(request.environ.get("gunicorn.socket"), engine.settings.stream_heartbeat_s)
    response = Response(
        _sent(engine, watch, read, first, after, line),
        content_type="text/event-stream; charset=utf-8",
        # A proxy that collects a response before it passes it on would hold events back.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )
    # Called however it ends: finished, never begun (HEAD), or failed in the middle.
    response.call_on_close(end)
    return response


def _sent(
    engine: Engine, watch: Watch, read: Read, batch: Batch, after: int | None, line: "Line"
) -> Iterator[str]:
    line.hurry()
    heartbeat_s = engine.settings.stream_heartbeat_s
    yield f"retry: {RETRY_MS}\n\n"
    quiet_since = time.monotonic()
    while True:
        for event in batch.events:
            yield event.encode()
            after = event.number if event.number is not None else after
            quiet_since = time.monotonic()
        if batch.ended or engine.events.closing:
            return
        if not batch.more and not watch.wait(heartbeat_s - (time.monotonic() - quiet_since)):
            if line.is_dead():
                return
            quiet_since = time.monotonic()
            yield ": heartbeat\n\n"
        batch = Batch([], ended=False)
        # What cannot be read now is read when the sweep sees it again.
        with contextlib.suppress(StoreUnavailable):
            try:
                with prompt(engine):
                    batch = read(after or 0)
            except NotFound:
                # Erased while it was watched.
                return


class Line:
    """The connection beneath a stream, where the server shows it."""

    def __init__(self, sock: socket.socket | None, patience_s: float) -> None:
        self._socket = sock
        self._patience_s = patience_s

    def hurry(self) -> None:
        """Give up on a client that takes nothing for as long as a heartbeat."""
        if self._socket is None:
            return
        # A client that does not read: the write fails. One that is no more and never said so
        # acknowledges nothing: the kernel fails the connection.
        self._socket.settimeout(self._patience_s)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            patience_ms = int(self._patience_s * 1000)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)

    def is_dead(self) -> bool:
        """Whether the client has closed its side."""
        if self._socket is None:
            return False
        ear = select.poll()
        ear.register(self._socket, select.POLLRDHUP)
        return bool(ear.poll(0))


def task_events(task: Task, after: int) -> list[Event]:
    """What a task's timeline says, as events with numbers above `after`."""
    # The timeline keeps its newest: the number of the first one is told by the count of all.
    first = max(task.events - len(task.timeline), 0) + 1
    events, at_work = [], first > 1
    if after < (first - 1) * PARTS:
        lost = first - 1 - after // PARTS
        events.append(_custom("timeline.cut", {"events": lost}, (first - 1) * PARTS + PARTS - 1))
    for number, happened in enumerate(task.timeline, first):
        last = number == first + len(task.timeline) - 1
        parts = _of_task(task, happened, at_work, last)
        at_work = happened["event"] == "claimed" or (
            at_work and happened["event"] not in ENDS_A_STEP
        )
        for place, (name, facts) in enumerate(parts):
            facts["timestamp"] = _ms(happened["at"])
            events.append(Event(name, facts, number * PARTS + place))
    return [event for event in events if event.number is not None and event.number > after]


def run_events(stored: StoredRun, after: int) -> list[Event]:
    """What a run's steps have come to, as events with numbers above `after`."""
    named = {"threadId": stored.id, "runId": stored.id}
    started = {"workflow": stored.workflow, "version": stored.version}
    events = [_at(stored.created_at, "RUN_STARTED", named | started, 1)]
    for place, visit in enumerate(stored.run.visits):
        step = {"stepName": visit.step, "visit": visit.key}
        number = visit.began * FENCE_PARTS + MAX_VISITS + 2 * place
        events.append(_at(visit.started_at, "STEP_STARTED", step, number))
        if visit.over:
            ended = step | {"state": visit.state.value, "code": visit.code}
            # What was over leads to what began; what took no time began first.
            at_once = visit.over == visit.began
            number = number + 1 if at_once else visit.over * FENCE_PARTS + place
            events.append(_at(visit.finished_at, "STEP_FINISHED", ended, number))
    if stored.run.state.final:
        number = stored.fence * FENCE_PARTS + FENCE_PARTS - 1
        if stored.run.state is RunState.COMPLETED:
            events.append(_at(stored.finished_at, "RUN_FINISHED", named, number))
        else:
            error = stored.run.error or {}
            told = {"message": error.get("detail", ""), "code": error.get("code", "")}
            events.append(_at(stored.finished_at, "RUN_ERROR", told, number))
    ordered = sorted(events, key=lambda event: event.number or 0)
    return [event for event in ordered if event.number is not None and event.number > after]


def _at(moment: dt.datetime | None, name: str, facts: Document, number: int) -> Event:
    timed = {} if moment is None else {"timestamp": _ms(moment)}
    return Event(name, facts | timed, number)


def session_events(news: SessionNews, after: int, told: SessionState | None) -> list[Event]:
    """A session's state where it is not as it was told, and its messages above `after`."""
    events = []
    now, before = vars(news.state), vars(told) if told else {}
    delta = [
        {"op": "add", "path": f"/{name}", "value": value}
        for name, value in now.items()
        if name not in before or before[name] != value
    ]
    if delta:
        events.append(Event("STATE_DELTA", {"delta": delta}))
    for message in news.messages:
        named = {"messageId": f"{message.session_id}:{message.n}"}
        said = {"role": ROLES[message.role], "author": message.role}
        parts: list[tuple[str, Document]] = [
            ("TEXT_MESSAGE_START", named | said | {"taskId": message.task_id}),
            ("TEXT_MESSAGE_CONTENT", named | {"delta": message.text}),
            ("TEXT_MESSAGE_END", named),
        ]
        for place, (name, facts) in enumerate(parts):
            number = message.n * PARTS + place
            if number > after:
                facts = facts | {"timestamp": _ms(message.at)}
                events.append(Event(name, facts, number))
    if news.state.status == "closed" and not news.more:
        number = news.number * PARTS + PARTS - 1
        if number > after:
            events.append(_custom("session.closed", {}, number))
    return events


def _of_task(
    task: Task, happened: Document, at_work: bool, last: bool
) -> Iterator[tuple[str, Document]]:
    """One event of a timeline in AG-UI's names; `at_work` while a step is begun."""
    what = happened["event"]
    run = {"threadId": task.session_id or task.id, "runId": task.id}
    facts = {name: value for name, value in happened.items() if name not in ("at", "event")}
    if what == "accepted":
        yield "RUN_STARTED", run | {"taskType": task.type, "agent": task.agent}
    elif what == "claimed":
        yield "STEP_STARTED", {"stepName": task.agent}
    elif what in ENDS_A_STEP and at_work:
        yield "STEP_FINISHED", {"stepName": task.agent}
    if what not in FINAL and what not in ("accepted", "claimed"):
        yield "CUSTOM", {"name": f"task.{what}", "value": facts}
    # Of a task that was replayed, an end is one only where nothing has followed.
    if not (last and task.state.final):
        return
    if task.state is State.COMPLETED:
        yield from _text_of(task)
        yield "RUN_FINISHED", run | {"result": task.result}
    else:
        error = task.error or {}
        code = error.get("code", task.state.value)
        yield "RUN_ERROR", run | {"code": code, "message": error.get("detail", code)}


def _text_of(task: Task) -> Iterator[tuple[str, Document]]:
    answer = chat.reply(task)
    if answer is not None:
        named = {"messageId": task.id}
        yield "TEXT_MESSAGE_START", named | {"role": "assistant", "author": "assistant"}
        yield "TEXT_MESSAGE_CONTENT", named | {"delta": answer["response"]}
        yield "TEXT_MESSAGE_END", dict(named)


def _custom(name: str, value: Document, number: int) -> Event:
    return Event("CUSTOM", {"name": name, "value": value}, number)


def _ms(at: dt.datetime) -> int:
    return int(at.timestamp() * 1000)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
