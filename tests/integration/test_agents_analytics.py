"""The analytics agent: counts of a period are those of the period."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agents.analytics.agent import Period, agent
from agents.analytics.measures import session_counts, task_groups
from agents.quote.agent import agent as quote_agent
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.tasks import Request, Task, id_at

HOUR = dt.timedelta(hours=1)


class Said(BaseModel):
    text: str


talker = Agent(role="talker", name="Talker", capabilities=[], slots=1)


@talker.handles("process_message")
def process_message(context: object, said: Said) -> str:
    return said.text


@pytest.fixture
def desk(desk_of: Callable[..., Any]) -> Any:
    return desk_of(agent)


def say(engine: Engine, session: str, *, done: bool = True) -> Task:
    """A message of a session, with its reply where it is done."""
    task, _ = engine.coordinator.submit(
        Request("process_message", {"text": "hi"}, caller="test", ordering_key=f"session:{session}")
    )
    if done:
        claim = engine.store.claim(task.id, engine.store.get(task.id).fence, "worker")
        assert claim is not None
        engine.coordinator.settle(engine.store.finish(claim, "hello"))
    return task


def report(desk: Any, since: dt.datetime, until: dt.datetime) -> dict[str, Any]:
    asked = {"since": since.isoformat(), "until": until.isoformat()}
    told: dict[str, Any] = desk.ask("period_report", asked)
    return told


def test_a_period_is_counted(desk: Any, desk_of: Callable[..., Any]) -> None:
    desk_of(talker)
    quotes = desk_of(quote_agent)
    now = desk.engine.clock.now()
    say(desk.engine, "a")
    say(desk.engine, "a")
    say(desk.engine, "b")
    say(desk.engine, "c", done=False)
    for area in ("50", "10"):
        item = {"product": "isodec", "thickness_mm": 100, "area_m2": area}
        quotes.ask("create_quote", {"items": [item]})
    told = report(desk, now - HOUR, now + HOUR)
    assert told["messages"] == {"total": 4, "by_state": {"completed": 3, "queued": 1}}
    assert told["sessions"] == {"active": 3, "new": 3}
    assert told["quotes"] == {
        "total": 2,
        "by_state": {"draft": 2},
        "value": {"UYU": {"total": "9000.00", "by_state": {"draft": "9000.00"}}},
    }
    messages = told["tasks"]["process_message"]
    assert messages["by_state"] == {"completed": 3, "queued": 1}
    assert 0 <= messages["run_ms"]["mean"] <= messages["run_ms"]["p95"] < 60_000
    assert told["tasks"]["create_quote"]["run_ms"] is None


def test_a_session_is_new_only_in_the_period_of_its_first_message(desk: Any) -> None:
    desk.engine.init([talker])
    first = say(desk.engine, "a")
    database = desk.engine.database
    document = database["tasks"].find_one({"_id": first.id})
    # The same message, as if it had been accepted a day earlier.
    database["tasks"].delete_one({"_id": first.id})
    earlier = first.created_at - 24 * HOUR
    database["tasks"].insert_one(document | {"_id": id_at(earlier) + first.id[12:]})
    say(desk.engine, "a")
    now = desk.engine.clock.now()
    assert report(desk, now - HOUR, now + HOUR)["sessions"] == {"active": 1, "new": 0}
    assert report(desk, earlier - HOUR, earlier + HOUR)["sessions"] == {"active": 1, "new": 1}


def test_a_period_without_anything_is_all_zeros(desk: Any) -> None:
    year_ago = desk.engine.clock.now() - 365 * 24 * HOUR
    told = report(desk, year_ago, year_ago + HOUR)
    assert told["messages"] == {"total": 0, "by_state": {}}
    assert told["sessions"] == {"active": 0, "new": 0}
    assert told["quotes"] == {"total": 0, "by_state": {}, "value": {}}
    assert told["tasks"] == {}


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00", "2026-01-02T00:00:00"),
    ],
)
def test_a_period_that_is_none_is_refused(since: str, until: str) -> None:
    with pytest.raises(ValidationError):
        Period.model_validate({"since": since, "until": until})


def test_counts_with_indexes_are_those_without(desk: Any) -> None:
    desk.engine.init([talker])
    for session in "aabcc":
        say(desk.engine, session, done=session != "b")
    database, now = desk.engine.database, desk.engine.clock.now()

    def counts() -> Any:
        groups = task_groups(database, now - HOUR, now + HOUR)
        return (
            sorted(groups, key=lambda group: group["state"]),
            session_counts(database, now - HOUR, now + HOUR),
            task_groups(database, now + HOUR, now + 2 * HOUR),
        )

    with_indexes = counts()
    database["tasks"].drop_indexes()
    assert counts() == with_indexes
    assert [group["count"] for group in with_indexes[0]] == [4, 1]
