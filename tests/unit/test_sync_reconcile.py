"""What is written of a row follows from three records and a rule."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.data_sync.reconcile import Rule, decide

EARLIER = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
LATER = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)


def decided(source: Any, target: Any, agreed: Any, rule: Rule = "theirs", **more: Any) -> Any:
    decision = decide(source, target, agreed, rule=rule, **{"source_is_ours": False} | more)
    return decision.outcome, decision.write, decision.disputed, decision.winner


def test_what_neither_side_knew_goes_in() -> None:
    assert decided({"a": 1}, None, None) == ("inserted", {"a": 1}, (), None)


def test_what_changed_on_one_side_only_is_right() -> None:
    assert decided({"a": 2}, {"a": 1}, {"a": 1}) == ("updated", {"a": 2}, (), None)
    assert decided({"a": 1}, {"a": 2}, {"a": 1}) == ("kept", {}, (), None)
    assert decided({"a": 2, "b": 1}, {"a": 1, "b": 5}, {"a": 1, "b": 1}, "ask") == (
        "updated",
        {"a": 2},
        (),
        None,
    )


def test_what_changed_alike_on_both_is_no_conflict() -> None:
    assert decided({"a": 2}, {"a": 2}, {"a": 1}, "ask") == ("unchanged", {}, (), None)


def test_what_a_side_has_taken_away_stays_away_until_the_other_changes_it() -> None:
    assert decided({"a": 1}, None, {"a": 1}) == ("kept", {}, (), None)
    assert decided({"a": 2}, None, {"a": 1}) == ("inserted", {"a": 2}, ("a",), "source")
    assert decided({"a": 2}, None, {"a": 1}, "ours") == ("kept", {}, ("a",), "target")


@pytest.mark.parametrize(
    ("rule", "more", "outcome", "winner"),
    [
        ("theirs", {}, "updated", "source"),
        ("ours", {}, "kept", "target"),
        ("theirs", {"source_is_ours": True}, "kept", "target"),
        ("ours", {"source_is_ours": True}, "updated", "source"),
        ("ask", {}, "asked", None),
        ("newest", {"source_at": LATER, "target_at": EARLIER}, "updated", "source"),
        ("newest", {"source_at": EARLIER, "target_at": LATER}, "kept", "target"),
        ("newest", {"source_at": LATER, "target_at": None}, "asked", None),
        ("newest", {"source_at": LATER, "target_at": LATER}, "asked", None),
    ],
)
def test_a_conflict_goes_by_the_rule(rule: Rule, more: Any, outcome: str, winner: Any) -> None:
    found = decided({"a": 2}, {"a": 3}, {"a": 1}, rule, **more)
    assert (found[0], found[2], found[3]) == (outcome, ("a",), winner)


def test_before_the_first_sync_there_is_nothing_to_quarrel_about_unless_a_person_is_to_say() -> (
    None
):
    assert decided({"a": 2}, {"a": 3}, None) == ("updated", {"a": 2}, (), None)
    assert decided({"a": 2}, {"a": 3}, None, "ours") == ("kept", {}, (), None)
    assert decided({"a": 2}, {"a": 3}, None, "ask") == ("asked", {}, ("a",), None)


records = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))
rules = st.sampled_from(["theirs", "ours", "newest", "ask"])


@given(records, st.none() | records, st.none() | records, rules, st.booleans())
def test_once_decided_a_row_comes_to_rest(
    source: Any, target: Any, agreed: Any, rule: Rule, ours: bool
) -> None:
    first = decide(source, target, agreed, rule=rule, source_is_ours=ours)
    after = target if not first.write else {**(target or {}), **first.write}
    second = decide(source, after, first.agreed, rule=rule, source_is_ours=ours)
    assert second.write == {}
    # Fields that nobody has decided stay in dispute; all others are settled.
    assert second.disputed == (first.disputed if first.winner is None else ())


@given(records, records, st.none() | records, rules, st.booleans())
def test_nothing_is_written_that_the_source_does_not_say(
    source: Any, target: Any, agreed: Any, rule: Rule, ours: bool
) -> None:
    write = decide(source, target, agreed, rule=rule, source_is_ours=ours).write
    assert write.items() <= source.items()
