"""Who is written to: those who fell silent, with what they fell silent about."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import pytest

from agents.followup.due import Due, find_due
from agents.quotes import Quote, QuoteState
from orchestrator.context import Session

NOW = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SESSION = Session.from_document(
    {
        "_id": "s1",
        "caller": "local",
        "channel": "web",
        "owner": "bot",
        "status": "open",
        "version": 3,
        "context": {"shared": {}, "agents": {}},
        "seq": 2,
        "fence": 1,
        "created_at": NOW - 3 * DAY,
        "updated_at": NOW - 2 * DAY,
    }
)
QUOTE = Quote(
    id="q1",
    code="COT-2026-000007",
    number="COT-2026-000007",
    version=1,
    supersedes=None,
    superseded_by=None,
    revision=0,
    edition=1,
    product="Isodec",
    description="Isodec 100 mm",
    state=QuoteState.DRAFT,
    session="s1",
    customer_name=None,
    customer_phone=None,
    language="es",
    items=(),
    total=Decimal("1.00"),
    tax=Decimal("0.18"),
    tax_rate=Decimal("0.22"),
    currency="UYU",
    catalogue_version=1,
    created_at=NOW - 2 * DAY,
    valid_until=NOW + 13 * DAY,
    state_at=NOW - 2 * DAY,
)


def due(*sessions: Session, quotes: dict[str, Quote] | None = None) -> list[Due]:
    return find_due(sessions, quotes or {}, now=NOW, silence=DAY)


@pytest.mark.parametrize(
    ("quote", "kind", "code"),
    [
        (None, "conversation_idle", None),
        (QUOTE, "quote_sent", QUOTE.code),
        (replace(QUOTE, state=QuoteState.SENT), "quote_sent", QUOTE.code),
        (replace(QUOTE, valid_until=NOW + DAY), "quote_expiring", QUOTE.code),
    ],
)
def test_a_silent_session_is_due(quote: Quote | None, kind: str, code: str | None) -> None:
    quotes = {} if quote is None else {"s1": quote}
    assert due(SESSION, quotes=quotes) == [Due("s1", kind, code, 2 * DAY)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"updated_at": NOW - DAY / 2}, id="not silent for long enough"),
        pytest.param({"owner": "human"}, id="a person has taken over"),
        pytest.param({"seq": 0}, id="nothing was ever answered"),
    ],
)
def test_a_session_is_left_alone(change: dict[str, object]) -> None:
    assert due(replace(SESSION, **change)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"state": QuoteState.ACCEPTED},
        {"state": QuoteState.REJECTED},
        {"state": QuoteState.EXPIRED},
        {"valid_until": NOW},
    ],
)
def test_a_quote_that_is_answered_or_over_is_left_alone(change: dict[str, object]) -> None:
    assert due(SESSION, quotes={"s1": replace(QUOTE, **change)}) == []  # type: ignore[arg-type]


def test_the_longest_silence_comes_first() -> None:
    sessions = [
        replace(SESSION, id=f"s{days}", updated_at=NOW - days * DAY) for days in (2, 9, 1, 5)
    ]
    assert [each.session for each in due(*sessions)] == ["s9", "s5", "s2", "s1"]
