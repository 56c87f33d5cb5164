"""The analytics agent: counts of a period are those of the period, whatever comes late or goes."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agents.analytics.agent import Period, agent
from agents.analytics.desk import desk_of as analytics_of
from agents.analytics.measures import MEASURES
from agents.analytics.rollup import hour_of
from agents.analytics.tally import merged
from agents.quote.agent import agent as quote_agent
from agents.quotes import QuoteStore
from orchestrator.context import Writer, ordering_key
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.tasks import Request, Task

HOUR = dt.timedelta(hours=1)
PHONE = "+59899123456"


class Said(BaseModel):
    text: str
    session_id: str
    channel: str = "web"


talker = Agent(
    role="talker", name="Talker", capabilities=[], slots=1, shares=["language", "objections"]
)


@talker.handles("process_message")
def process_message(context: object, said: Said) -> str:
    return said.text


@pytest.fixture
def desk(desk_of: Callable[..., Any]) -> Any:
    desk_of(talker)
    return desk_of(agent)


@pytest.fixture
def quotes(desk_of: Callable[..., Any]) -> Any:
    return desk_of(quote_agent)


def say(
    engine: Engine, session_id: str, *, done: bool = True, objections: tuple[str, ...] = ()
) -> Task:
    """A message of a session, with its turn where it is done."""
    session = engine.sessions.open(
        session_id, PHONE, caller="test", channel="whatsapp", trusted=False
    )
    task, _ = engine.coordinator.submit(
        Request(
            "process_message",
            {"text": "hi", "session_id": session.id, "channel": "whatsapp"},
            caller="test",
            ordering_key=ordering_key(session.id),
        )
    )
    if done:
        finish(engine, task, list(objections))
    return engine.store.get(task.id)


def finish(engine: Engine, task: Task, objections: list[str] | None = None) -> None:
    claim = engine.store.claim(task.id, engine.store.get(task.id).fence, "worker")
    assert claim is not None
    burst = engine.sessions.begin(task.payload["session_id"], claim.task)
    reply = {"text": "hello", "owner": "bot", "intent": "quote"}
    engine.sessions.commit(
        burst,
        writer=Writer("talker_agent", frozenset({"objections"})),
        reply=reply,
        shared={"objections": objections} if objections else None,
        intent="cotizacion",
    )
    engine.coordinator.settle(engine.store.finish(claim, reply))


def offered(engine: Engine, quotes: Any, session_id: str | None, area: str = "50") -> str:
    item = {"product": "isodec", "thickness_mm": 100, "area_m2": area}
    told = quotes.ask("create_quote", {"items": [item], "session_id": session_id})
    QuoteStore(engine.database, engine.clock).change(told["quote_id"], "send")
    return str(told["quote_id"])


def report(desk: Any) -> dict[str, Any]:
    now = desk.engine.clock.now()
    asked = {"since": (now - HOUR).isoformat(), "until": now.isoformat()}
    told: dict[str, Any] = desk.ask("period_report", asked)
    return told


def values(told: dict[str, Any], *names: str) -> list[Any]:
    return [told["measures"][name]["value"] for name in names]


def test_a_period_is_compared_with_the_one_before_it_where_that_was_counted_whole(
    desk: Any, advance: Callable[[float], None]
) -> None:
    def before(days: int) -> Any:
        now = desk.engine.clock.now()
        asked = {"since": (now - dt.timedelta(days=days)).isoformat(), "until": now.isoformat()}
        return desk.ask("period_report", asked)["measures"]["messages"]["before"]

    for _ in range(2):
        say(desk.engine, "a")
        advance(7 * 86_400)
    assert before(5) == 1
    assert before(8) is None


def test_a_period_is_counted(desk: Any, quotes: Any) -> None:
    engine = desk.engine
    say(engine, "a", objections=("price",))
    say(engine, "a")
    say(engine, "b")
    say(engine, "c", done=False)
    accepted = offered(engine, quotes, "a")
    offered(engine, quotes, "b", area="10")
    offered(engine, quotes, None)
    quotes.ask("accept_quote", {"quote_id": accepted})
    told = report(desk)
    assert values(told, "messages", "sessions", "quotes_offered") == [4, 2, 3]
    assert told["funnel"] == {
        "sessions": 2,
        "sessions_asked": 2,
        "sessions_offered": 2,
        "sessions_accepted": 1,
    }
    assert told["measures"]["conversion"]["by"]["channel"] == {"whatsapp": 0.5}
    assert told["money"]["UYU"] == {
        "quoted": "16500.00",
        "won": "7500.00",
        "products": {"isodec": {"quoted": "16500.00", "won": "7500.00"}},
    }
    assert told["measures"]["objections_overcome"]["by"] == {
        "kind": {"price": 1},
        "channel": {"whatsapp": 1},
    }
    assert told["measures"]["messages"]["by"] == {"channel": {"whatsapp": 4}}
    assert sum(day["messages"] for day in told["days"]) == 4
    assert sum(map(sum, told["rhythm"])) == 4


def test_counting_again_changes_nothing(desk: Any, quotes: Any) -> None:
    say(desk.engine, "a")
    offered(desk.engine, quotes, "a")
    first = report(desk)
    rollup = analytics_of(desk.engine).rollup
    rollup.recount([hour_of(desk.engine.clock.now())])
    desk.ask("roll_up")
    again = report(desk)
    # The tasks that asked for this are new.
    for name in ("messages", "sessions", "quotes", "answer_p50"):
        assert first["measures"][name] == again["measures"][name]


def test_what_comes_late_corrects_its_hour_and_its_day(
    desk: Any, quotes: Any, advance: Callable[[float], None]
) -> None:
    engine, began = desk.engine, desk.engine.clock.now()
    unfinished = say(engine, "a", done=False)
    quote = offered(engine, quotes, "a")
    assert values(report(desk), "quotes_accepted", "answer_p50") == [0, None]
    advance(3 * 86400)
    desk.ask("roll_up")
    finish(engine, unfinished)
    quotes.ask("accept_quote", {"quote_id": quote})
    decided = engine.clock.now()
    advance(4 * 3600)
    desk.ask("roll_up")
    rollup = analytics_of(engine).rollup
    day = merged(rollup.daily(rollup.day_of(began), rollup.day_of(began + 24 * HOUR)).values())
    told = {name: each.value(day, {}) for name, each in MEASURES.items()}
    assert (told["quotes_accepted"], told["conversion"], told["decided_conversion"]) == (1, 1, None)
    assert told["answer_p50"] == pytest.approx(3 * 86400, rel=0.02)
    today = merged(rollup.daily(rollup.day_of(decided), dt.date(9999, 1, 1)).values())
    assert MEASURES["decided_conversion"].value(today, {}) == 1


def test_a_replayed_dead_letter_is_counted_anew(desk: Any) -> None:
    engine = desk.engine
    task = say(engine, "a", done=False)
    claim = engine.store.claim(task.id, task.fence, "worker")
    assert claim is not None
    engine.coordinator.settle(engine.store.fail(claim, {"code": "broken", "detail": "It is."}))
    told = values(report(desk), "dead_letters", "messages_failed")
    assert told == [1, 1]
    engine.dead_letters.replay(task.id, by="test")
    finish(engine, engine.store.get(task.id))
    assert values(report(desk), "dead_letters", "messages_failed", "messages") == [0, 0, 1]


def test_an_erasure_takes_nothing_from_the_counts(
    desk: Any, quotes: Any, advance: Callable[[float], None], eventually: Callable[..., Any]
) -> None:
    engine = desk.engine
    say(engine, "a")
    quotes.ask("accept_quote", {"quote_id": offered(engine, quotes, "a")})
    before = report(desk)
    erasure = engine.customers.erase(PHONE, by="test")

    def erased() -> bool:
        advance(1)
        return bool(engine.customers.advance(erasure.id).state == "done")

    eventually(erased)
    assert engine.database["sessions"].find_one({}) is None
    rollup = analytics_of(engine).rollup
    rollup.recount([hour_of(engine.clock.now()), hour_of(engine.clock.now()) - HOUR])
    after = report(desk)
    for name in ("messages", "sessions", "quotes_accepted", "answer_p50", "turns_to_quote"):
        assert after["measures"][name]["value"] == before["measures"][name]["value"], name
    assert after["funnel"] == before["funnel"]
    assert after["money"] == before["money"]
    held = [str(each) for each in engine.database["conversation_facts"].find()]
    assert held
    assert not any(PHONE in each or "'a'" in each for each in held)


def test_counts_with_indexes_are_those_without(desk: Any, quotes: Any) -> None:
    for session in "aabcc":
        say(desk.engine, session)
    offered(desk.engine, quotes, "b")
    with_indexes = report(desk)
    for name in ("tasks", "quotes", "sessions", "report_hours", "conversation_facts"):
        desk.engine.database[name].drop_indexes()
    rollup = analytics_of(desk.engine).rollup
    now = hour_of(desk.engine.clock.now())
    rollup.recount([now, now - HOUR])
    without = report(desk)
    for name in ("messages", "sessions", "quotes", "answer_p50"):
        for told in ("value", "by"):
            assert with_indexes["measures"][name][told] == without["measures"][name][told]


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
