"""Tallies add up whatever the order, and tell quantiles with the error that they state."""

import math
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from agents.analytics.tally import RELATIVE_ERROR, Histogram, Tally, key, merged

VALUES = st.lists(st.floats(min_value=1, max_value=1e9), min_size=1, max_size=200)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["messages", "quotes"]),
        st.sampled_from(["web", "whatsapp", "a|b=c.$"]),
        st.decimals(min_value=0, max_value=10**6, places=2),
    ),
    max_size=40,
)


def tally_of(events: list[tuple[str, str, Decimal]]) -> Tally:
    tally = Tally()
    for name, channel, amount in events:
        tally.count(name, {"channel": channel})
        tally.add_money(name, amount, {"currency": "UYU"})
        tally.time(name, float(amount), {"channel": channel})
    return tally


@given(VALUES, st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_a_quantile_is_right_within_the_stated_error(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    told = histogram.quantile(share)
    assert told is not None
    assert abs(told - exact) <= exact * RELATIVE_ERROR * 1.0001


def test_a_histogram_without_values_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


@given(EVENTS, st.integers(min_value=0, max_value=40))
def test_a_whole_is_the_sum_of_its_parts_in_any_order(
    events: list[tuple[str, str, Decimal]], cut: int
) -> None:
    whole = tally_of(events)
    parts = [tally_of(events[:cut]), tally_of(events[cut:])]
    assert merged(parts) == whole
    assert merged(reversed(parts)) == whole


@given(EVENTS)
def test_what_is_stored_is_read_again(events: list[tuple[str, str, Decimal]]) -> None:
    tally = tally_of(events)
    assert Tally.from_document(tally.to_document()) == tally


def test_parts_are_told_apart() -> None:
    tally = Tally()
    tally.count("tasks", {"agent": "a", "state": "failed"}, {"agent": "b"})
    tally.count("tasks_more", {"agent": "c"})
    assert tally.parts_of("tasks", "agent") == ["a", "b"]
    assert tally.counts[key("tasks")] == 1
