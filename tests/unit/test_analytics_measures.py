"""Counts of a period, put together from groups."""

from decimal import Decimal

from agents.analytics.measures import messages_of, quotes_of, tasks_by_type
from agents.quotes import QuoteState, QuoteSum


def group(kind: str, state: str, count: int, mean_ms: float | None = None) -> dict[str, object]:
    return {"type": kind, "state": state, "count": count, "mean_ms": mean_ms, "p95_ms": mean_ms}


def test_tasks_are_counted_by_type_and_state_and_timed_by_those_that_completed() -> None:
    by_type = tasks_by_type(
        [
            group("process_message", "completed", 8, 12.34),
            group("process_message", "failed", 2, 9000.0),
            group("create_quote", "queued", 1),
        ]
    )
    assert by_type == {
        "create_quote": {"total": 1, "by_state": {"queued": 1}, "run_ms": None},
        "process_message": {
            "total": 10,
            "by_state": {"completed": 8, "failed": 2},
            "run_ms": {"mean": 12.3, "p95": 12.3},
        },
    }
    assert messages_of(by_type) == {"total": 10, "by_state": {"completed": 8, "failed": 2}}


def test_a_period_without_anything_has_zeros() -> None:
    assert messages_of({}) == {"total": 0, "by_state": {}}
    assert quotes_of([]) == {"total": 0, "by_state": {}, "value": {}}


def test_money_is_added_up_per_currency_and_exactly() -> None:
    told = quotes_of(
        [
            QuoteSum(QuoteState.DRAFT, "UYU", 2, Decimal("0.10")),
            QuoteSum(QuoteState.SENT, "UYU", 1, Decimal("0.20")),
            QuoteSum(QuoteState.SENT, "USD", 1, Decimal("7.00")),
        ]
    )
    assert told == {
        "total": 4,
        "by_state": {"draft": 2, "sent": 2},
        "value": {
            "UYU": {"total": "0.30", "by_state": {"draft": "0.10", "sent": "0.20"}},
            "USD": {"total": "7.00", "by_state": {"sent": "7.00"}},
        },
    }
