"""What tasks, conversations and quotes count for, and what measures make of it."""

import datetime as dt
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from agents.analytics.facts import (
    count_conversation,
    count_decision,
    count_quote,
    count_task,
    facts_of,
    joined,
)
from agents.analytics.figures import as_csv, figures
from agents.analytics.measures import MEASURES, amounts, by_state, funnel
from agents.analytics.tally import Tally
from orchestrator.tasks import id_at

NOW = dt.datetime(2026, 3, 2, 14, 30, tzinfo=dt.UTC)
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/analytics.md"


def at(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


def message(**changes: Any) -> dict[str, Any]:
    task = {
        "_id": id_at(NOW) + "0" * 20,
        "type": "process_message",
        "agent": "conversation_agent",
        "state": "completed",
        "seq": 1,
        "failures": 0,
        "crashes": 0,
        "queued_at": at(0),
        "started_at": at(1),
        "finished_at": at(3),
        "payload": {"channel": "web"},
        "result": {"owner": "bot", "intent": "quote"},
    }
    return task | changes


def quote(**changes: Any) -> dict[str, Any]:
    made = {
        "_id": "q",
        "state": "sent",
        "superseded_by": None,
        "channel": "web",
        "items": [{"product": "isodec", "total": "70.50"}, {"product": "eps", "total": "29.50"}],
        "currency": "UYU",
        "total": Decimal128("100.00"),
        "created_at": at(0),
        "history": [{"state": "draft", "at": at(0)}, {"state": "sent", "at": at(1)}],
    }
    return made | changes


def session(**changes: Any) -> dict[str, Any]:
    return {
        "_id": "s",
        "channel": "web",
        "created_at": at(-60),
        "owner": "bot",
        "waiting_since": None,
        "context": {"shared": {"objections": ["price"]}, "agents": {}},
        "turns": [{"at": at(-50), "intent": "general"}, {"at": at(1), "intent": "cotizacion"}],
    } | changes


def value(name: str, tally: Tally, **part: str) -> float | None:
    return MEASURES[name].value(tally, part)


def test_a_message_is_counted_and_timed_by_channel_and_agent() -> None:
    tally = Tally()
    count_task(tally, message())
    count_task(tally, message(seq=2, state="failed", failures=3, result=None))
    assert value("messages", tally) == value("messages", tally, channel="web") == 2
    assert value("messages_failed", tally) == 1
    assert value("dead_letters", tally, agent="conversation_agent") == 1
    assert value("errors", tally) == 3
    assert value("first_answer_p50", tally) == pytest.approx(3, rel=0.01)
    assert value("run_p95", tally) == pytest.approx(2, rel=0.01)
    assert value("wait_p95", tally, agent="conversation_agent") == pytest.approx(1, rel=0.01)
    assert by_state(tally, "tasks") == {"completed": 1, "failed": 1}


def test_a_person_who_answers_is_no_answer_time_of_the_desk() -> None:
    tally = Tally()
    count_task(tally, message(result={"owner": "human", "text": ""}))
    assert value("answer_p50", tally) is None
    count_task(tally, message(result={"owner": "human", "intent": "general"}))
    assert value("answer_p50", tally) is not None
    assert value("handovers", tally) == 1


def test_what_was_erased_counts_as_what_it_was() -> None:
    tally = Tally()
    shell = message(
        state="cancelled", payload={}, erased=True, was={"state": "completed", "seq": 1}
    )
    del shell["result"], shell["seq"]
    count_task(tally, shell)
    assert by_state(tally, "tasks") == {"completed": 1}
    assert value("messages", tally, channel="unknown") == 1
    assert value("first_answer_p50", tally) is not None


def test_a_child_that_failed_is_no_dead_letter() -> None:
    tally = Tally()
    count_task(tally, message(type="create_quote", state="failed", parent={"id": "p"}))
    assert value("dead_letters", tally) == 0


def test_a_conversation_counts_as_far_as_it_came() -> None:
    tally = Tally()
    count_conversation(tally, facts_of(session(), [quote(state="accepted")]))
    count_conversation(tally, facts_of(session(), []))
    count_conversation(tally, facts_of(session(turns=[]), []))
    assert list(funnel(tally, {}).values()) == [2, 2, 1, 1]
    assert value("turns_to_quote", tally) == 2
    assert value("objections", tally, kind="price") == 2
    assert value("objections_overcome", tally, kind="price") == 1


def test_what_was_once_so_of_a_conversation_stays_so() -> None:
    before = facts_of(session(), [quote(state="accepted")])
    after = facts_of(session(context={"shared": {}}, turns=[{"at": at(5)}]), [])
    assert joined(before, after) == before
    assert joined(None, after) == after


def test_a_quote_counts_by_what_became_of_it() -> None:
    tally = Tally()
    won = quote(state="accepted", history=[{"state": "draft"}, {"state": "accepted"}])
    for each in (won, quote(), quote(state="draft", history=[{"state": "draft"}])):
        count_quote(tally, each)
    count_quote(tally, quote(superseded_by="later"))
    assert value("quotes", tally) == 4
    assert value("quotes_offered", tally) == 2
    assert value("conversion", tally, channel="web") == 0.5
    assert value("conversion", tally, product="eps") == 0.5
    assert by_state(tally, "quotes") == {"accepted": 1, "draft": 1, "revised": 1, "sent": 1}
    assert amounts(tally, "quoted", {}) == {"UYU": Decimal("200.00")}
    assert amounts(tally, "won", {"product": "isodec"}) == {"UYU": Decimal("70.50")}


@pytest.mark.parametrize(
    ("state", "objections", "reason"),
    [
        ("rejected", ["price", "delay"], "price"),
        ("rejected", ["delay"], "delay"),
        ("rejected", [], "other"),
        ("expired", [], "silence"),
        ("expired", ["price"], "price"),
    ],
)
def test_a_lost_quote_has_a_reason(state: str, objections: list[str], reason: str) -> None:
    tally = Tally()
    count_decision(tally, quote(state=state), {"objections": objections})
    count_decision(tally, quote(state="accepted"), None)
    assert value("lost", tally, reason=reason) == value("lost", tally) == 1
    assert value("decided_conversion", tally) == 0.5


def test_a_time_without_anything_has_zeros_and_no_ratios() -> None:
    told = figures({}, Tally(), since=NOW, until=at(3600), zone="UTC")
    values = {name: each["value"] for name, each in told["measures"].items()}
    assert all(values[name] in (0, None) for name in values)
    assert values["conversion"] is None
    assert told["days"] == []
    assert told["money"] == {}


def test_the_csv_has_the_numbers_of_the_figures() -> None:
    tally = Tally()
    count_task(tally, message(payload={"channel": "=cmd()"}))
    count_quote(tally, quote(state="accepted"))
    lines = as_csv(
        figures({NOW.date(): tally}, Tally(), since=NOW, until=at(3600), zone="UTC")
    ).splitlines()
    assert lines[0] == "date,measure,dimension,part,unit,value"
    assert ",messages,,,count,1" in lines
    assert "2026-03-02,won,,,UYU,100.00" in lines
    assert ",won,product,eps,UYU,29.50" in lines
    assert not [line for line in lines if ",=" in line]


def test_every_measure_stands_in_the_document_with_its_formula() -> None:
    section = DOCUMENT.read_text().partition("## How the counts")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \|", section, re.MULTILINE)
    assert rows == [(each.name, each.unit, each.formula) for each in MEASURES.values()]
