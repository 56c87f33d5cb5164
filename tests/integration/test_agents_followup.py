"""The follow-up agent: finds who fell silent, and writes to them."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from agents.followup.agent import agent
from agents.quote.agent import agent as quote_agent
from orchestrator.errors import TaskError

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def desk(desk_of: Callable[..., Any]) -> Any:
    return desk_of(agent)


def touched(desk: Any, session_id: str, hours_ago: float, **fields: Any) -> None:
    """A session that was answered once, and last touched so long ago."""
    desk.engine.sessions.open(session_id, None, caller="local", channel="web", trusted=False)
    then = desk.engine.clock.now() - hours_ago * HOUR
    desk.engine.database["sessions"].update_one(
        {"_id": session_id}, {"$set": {"updated_at": then, "seq": 1} | fields}
    )


def quoted(desk_of: Callable[..., Any], session_id: str, **asked: Any) -> str:
    item = {"product": "isodec", "thickness_mm": 100, "area_m2": 50}
    quote = desk_of(quote_agent).ask(
        "create_quote", {"session_id": session_id, "items": [item]} | asked
    )
    return str(quote["code"])


def test_silent_sessions_are_found_the_longest_silence_first(
    desk: Any, desk_of: Callable[..., Any]
) -> None:
    touched(desk, "fresh", 1)
    touched(desk, "quoted", 30)
    touched(desk, "idle", 50)
    touched(desk, "forgotten", 24 * 20)
    touched(desk, "human", 30, owner="human")
    code = quoted(desk_of, "quoted")
    found = desk.ask("find_due_followups")
    assert found == {
        "due": [
            {
                "session_id": "idle",
                "kind": "conversation_idle",
                "quote_code": None,
                "silent_h": 50.0,
            },
            {
                "session_id": "quoted",
                "kind": "quote_sent",
                "quote_code": code,
                "silent_h": 30.0,
            },
        ],
        "looked_at": 3,
        "more": False,
    }


def test_a_limit_says_that_there_are_more(desk: Any) -> None:
    for number in range(3):
        touched(desk, f"s{number}", 2)
    found = desk.ask("find_due_followups", {"silence_h": 1, "limit": 2})
    assert (len(found["due"]), found["more"]) == (2, True)


def test_finding_again_finds_the_same(desk: Any) -> None:
    touched(desk, "s", 30)
    assert desk.ask("find_due_followups")["due"] == desk.ask("find_due_followups")["due"]


def test_a_message_is_written_from_what_is_known_of_the_session(
    desk: Any, desk_of: Callable[..., Any]
) -> None:
    code = quoted(desk_of, "s1", customer={"name": "Ana"}, language="en")
    written = desk.ask("generate_message", {"kind": "quote_sent", "session_id": "s1"})
    assert (written["language"], written["quote_code"]) == ("en", code)
    assert written["text"].startswith(f"Hello Ana. Did you have a chance to look at quote {code}?")
    # The session knows better than the quote what is spoken now.
    touched(desk, "s1", 1, **{"context.shared": {"language": "es", "name": "Ana María"}})
    written = desk.ask("generate_message", {"kind": "quote_expiring", "session_id": "s1"})
    assert written["text"].startswith(f"Hola Ana María. La cotización {code}")


def test_a_message_says_what_it_was_told(desk: Any) -> None:
    asked = {"kind": "conversation_idle", "language": "en", "name": "Bob"}
    assert desk.ask("generate_message", asked)["text"].startswith("Hello Bob.")


def test_a_message_about_a_quote_that_nobody_knows_is_not_written(desk: Any) -> None:
    with pytest.raises(TaskError) as refused:
        desk.ask("generate_message", {"kind": "quote_sent", "session_id": "nobody"})
    assert refused.value.task_code == "message_incomplete"
    assert refused.value.facts == {"missing": ["quote_code"]}
