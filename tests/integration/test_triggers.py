"""What starts runs by itself: each kind, once, by the way that it really comes."""

import datetime as dt
import itertools

import pytest
from pydantic import BaseModel

from agents.conversation.agent import agent as conversation
from agents.orchestrator.agent import agent as orchestrating
from agents.quote.agent import agent as quoting
from orchestrator import triggers
from orchestrator.context import ordering_key
from orchestrator.declarations import Agent
from orchestrator.definitions import check
from orchestrator.engine import Engine
from orchestrator.tasks import Request

working = Agent(role="work", name="Worker", capabilities=["working"], slots=2)


class Anything(BaseModel):
    n: int = 0


@working.handles("do", needs=["working"])
def do(context, asked: Anything):
    return {}


@pytest.fixture
def desk(engine: Engine, work) -> Engine:
    return engine


@pytest.fixture
def work(workers):
    return workers(conversation, orchestrating, quoting, working).work


def put(desk: Engine, on: dict, **more) -> None:
    steps = [{"id": "d", "delay": {"for": "9d"}}]
    desk.definitions.put(check({"id": "flow", "on": [on], "steps": steps, **more}), "test")


def runs(desk: Engine) -> list[dict]:
    return list(desk.database["runs"].find().sort("_id", 1))


def say(desk: Engine, text: str, session_id: str = "s1"):
    session = desk.sessions.open(session_id, None, caller="local", channel="web", trusted=False)
    key = ordering_key(session.id)
    payload = {"session_id": session.id, "message": text}
    request = Request("process_message", payload, ordering_key=key)
    return desk.coordinator.submit(request)[0]


def test_a_message_starts_a_run_once_however_often_its_task_runs(desk, work):
    put(desk, {"event": "message_received", "when": "event.channel == 'web'"})
    task = say(desk, "hola")
    facts = {"session_id": "s1", "channel": "web", "task_id": task.id}
    desk.triggers.happened("message_received", task.id, facts)
    work()
    [run] = runs(desk)
    assert run["trigger"] == "message_received"
    assert run["input"] == facts


def test_a_quote_starts_a_run_where_it_is_large(desk, work):
    on = {
        "event": "quote_created",
        "when": "event.total > 10000.0",
        "input": {"quote": "=event.quote_id"},
    }
    put(desk, on)
    quotes = []
    for area in (10, 400):
        item = {"product": "isodec", "thickness_mm": 100, "area_m2": area}
        quotes.append(desk.coordinator.submit(Request("create_quote", {"items": [item]}))[0])
        work()
    [run] = runs(desk)
    assert run["input"] == {"quote": quotes[1].id}


def test_a_schedule_starts_a_run_at_each_of_its_times(desk, work, advance):
    put(desk, {"cron": "*/5 * * * *", "input": {"at": "=string(now)", "n": 1}})
    for _ in range(2):
        advance(301)
        assert desk.timers.fire_due(10) == 1
        assert desk.timers.fire_due(10) == 0
        work()
    first, second = runs(desk)
    assert first["trigger"] == "schedule"
    assert first["input"]["n"] == 1
    times = [dt.datetime.fromisoformat(run["input"]["at"]) for run in (first, second)]
    assert dt.timedelta(seconds=250) < times[1] - times[0] < dt.timedelta(seconds=350)


def test_an_input_of_a_schedule_that_has_no_value_says_so(desk, work, advance):
    put(desk, {"cron": "*/5 * * * *", "input": {"at": "=now + 1"}})
    advance(301)
    desk.timers.fire_due(10)
    [task_id] = work()
    assert desk.store.get(task_id).error["code"] == "not_started"
    assert runs(desk) == []


def test_a_silence_starts_one_run_until_the_customer_writes_again(desk, work, advance):
    put(desk, {"event": "conversation_idle", "after": "2h"})
    assert desk.triggers.fall_silent(100) == 0
    say(desk, "hola")
    work()
    advance(3600)
    assert desk.triggers.fall_silent(100) == 0
    advance(3601)
    assert desk.triggers.fall_silent(100) == 1
    assert desk.triggers.fall_silent(100) == 0
    # What we say to a customer who is silent begins no new silence.
    desk.sessions.take("s1", "ann")
    desk.sessions.reply_as_person("s1", "¿Seguís ahí?", by="ann", key="1")
    desk.sessions.give_back("s1")
    advance(7201)
    assert desk.triggers.fall_silent(100) == 0
    say(desk, "sí")
    work()
    advance(7201)
    assert desk.triggers.fall_silent(100) == 1
    first, second = runs(desk)
    assert first["trigger"] == "conversation_idle"
    assert first["input"]["session_id"] == "s1"
    assert first["input"]["language"] == "es"
    assert first["input"]["message"] < second["input"]["message"]


def test_who_is_silent_already_and_who_has_closed_start_nothing(desk, work, advance):
    say(desk, "hola", "before")
    work()
    advance(7201)
    put(desk, {"event": "conversation_idle", "after": "2h"})
    assert desk.triggers.fall_silent(100) == 0
    say(desk, "hola", "closed")
    work()
    desk.sessions.close("closed")
    desk.sessions.open("empty", None, caller="local", channel="web", trusted=False)
    advance(7201)
    assert desk.triggers.fall_silent(100) == 0


def test_silences_are_found_a_few_at_a_time_and_none_is_missed(desk, work, advance):
    put(desk, {"event": "conversation_idle", "after": "2h"})
    desk.triggers.fall_silent(100)
    for n in range(7):
        say(desk, "hola", f"s{n}")
        work()
    # As many as do not fit into one look, of one instant.
    desk.database["sessions"].update_many(
        {}, {"$set": {"updated_at": desk.sessions.get("s3").updated_at}}
    )
    advance(7201)
    started = [desk.triggers.fall_silent(2) for _ in range(4)]
    assert sum(started) == 7
    assert {run["input"]["session_id"] for run in runs(desk)} == {f"s{n}" for n in range(7)}


def test_a_process_that_dies_before_it_marks_a_silence_starts_nothing_twice(
    desk, work, advance, monkeypatch
):
    put(desk, {"event": "conversation_idle", "after": "2h"})
    desk.triggers.fall_silent(100)
    for n in range(3):
        say(desk, "hola", f"s{n}")
        work()
    advance(7201)
    begun = itertools.count()
    start = desk.workflows.start

    def dies(*args, **more):
        if next(begun) == 2:
            raise SystemExit
        return start(*args, **more)

    with monkeypatch.context() as dying:
        dying.setattr(desk.workflows, "start", dies)
        with pytest.raises(SystemExit):
            desk.triggers.fall_silent(100)
    assert len(runs(desk)) == 2
    assert desk.triggers.fall_silent(100) == 1
    assert len(runs(desk)) == 3


def test_the_rescuer_looks_for_silences(desk, work, advance):
    put(desk, {"event": "conversation_idle", "after": "2h"})
    rescuer = desk.rescuer("me", eager=True)
    rescuer.tick()
    assert rescuer.run_once().started == 0
    say(desk, "hola")
    work()
    advance(7201)
    assert rescuer.run_once().started == 1
    assert runs(desk)[0]["trigger"] == triggers.IDLE
