"""Follow-ups as they are kept: once for a reason, within what books allow, and measured."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agents.followups import (
    EFFECTS,
    HOLDING,
    Effect,
    Entry,
    FollowupNotFound,
    FollowupState,
    FollowupStore,
    NewFollowup,
)
from agents.stores import stores_of
from orchestrator.engine import Engine

HOUR = dt.timedelta(hours=1)
DAY = 24 * HOUR


@pytest.fixture
def store(engine: Engine) -> FollowupStore:
    store = stores_of(engine).followups
    store.ensure_indexes()
    return store


def new(engine: Engine, reason: str = "rule:q1", **more: Any) -> NewFollowup:
    known = {
        "rule": "rule",
        "message": "quote_sent",
        "session_id": "s1",
        "customer": "c1",
        "due_at": engine.clock.now(),
    }
    return NewFollowup(reason=reason, **known | more)


def test_a_reason_counts_once_whoever_finds_it(engine: Engine, store: FollowupStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        planned = list(pool.map(lambda _: store.plan(new(engine)), range(16)))
    assert len({followup.id for followup, _ in planned}) == 1
    assert [created for _, created in planned].count(True) == 1
    # Also when it has been sent, and when a person did not want it.
    followup = store.sent(planned[0][0], engine.clock.now(), [])
    assert store.plan(new(engine)) == (followup, False)
    other, _ = store.plan(new(engine, "rule:q2"))
    store.cancel(other.id, "ana")
    assert store.plan(new(engine, "rule:q2"))[0].state is FollowupState.CANCELLED


def test_what_was_skipped_is_planned_again_in_a_new_round(
    engine: Engine, store: FollowupStore
) -> None:
    first, _ = store.plan(new(engine))
    assert store.skip(first, {"code": "person_has_it"})
    assert not store.skip(first, {"code": "person_has_it"})
    again, created = store.plan(new(engine))
    assert (again.id, again.round, again.state, created) == (first.id, 1, "planned", True)


def test_what_was_planned_and_never_started_is_found(engine: Engine, store: FollowupStore) -> None:
    followup, _ = store.plan(new(engine))
    later = engine.clock.now() + HOUR
    assert [each.id for each in store.unstarted(later, 10)] == [followup.id]
    store.started(followup, "run")
    assert store.unstarted(later, 10) == []
    assert store.get(followup.id).run_id == "run"


def test_what_was_sent_stays_sent(engine: Engine, store: FollowupStore) -> None:
    followup, _ = store.plan(new(engine))
    store.cancel(followup.id, "ana")
    # It was in the conversation before it was cancelled: that is what counts.
    sent = store.sent(followup, engine.clock.now(), ["x.0"])
    assert sent.state is FollowupState.SENT
    assert store.cancel(followup.id, "ana").state is FollowupState.SENT
    assert store.sent(followup, engine.clock.now() + HOUR, []).sent_at == sent.sent_at


def test_a_book_has_room_for_so_many_whoever_enters(engine: Engine, store: FollowupStore) -> None:
    now = engine.clock.now()

    def enter(n: int) -> bool:
        entry = Entry(f"f{n}", "rule", now)
        return store.enter("day 1", entry, lambda others: len(others) < 3, DAY)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(12))) == 3
    entered = store.book("day 1")
    assert len(entered) == 3
    # Who is in it needs no more room; who leaves makes some.
    assert enter(int(entered[0].id[1:]))
    store.leave("day 1", entered[0].id)
    assert enter(99)
    late = Entry("late", "rule", now + 2 * DAY)
    assert store.enter("day 1", late, lambda others: not others, DAY)
    assert [each.id for each in store.book("day 1")] == ["late"]


def test_effects_are_counted_by_rule_in_the_period_in_which_it_went_out(
    engine: Engine, store: FollowupStore
) -> None:
    now = engine.clock.now()

    def sent(n: int, rule: str, ago: dt.timedelta, over: bool = True, **counts: int) -> None:
        followup, _ = store.plan(new(engine, f"{rule}:{n}", rule=rule))
        followup = store.sent(followup, now - ago, [])
        told = dict.fromkeys(EFFECTS, 0) | counts
        store.measured(followup, told, None, over=over)

    sent(1, "a", HOUR, answered=1, accepted=1)
    sent(2, "a", HOUR, over=False)
    sent(3, "a", 3 * DAY, answered=1)
    sent(4, "b", HOUR, not_delivered=1)
    sent(5, "b", HOUR, answered=1, opted_out=1)
    store.plan(new(engine, "a:6", rule="a"))
    a = Effect("a", 2, answered=1, accepted=1, rejected=0, opted_out=0, not_delivered=0, open=1)
    b = Effect("b", 2, answered=1, accepted=0, rejected=0, opted_out=1, not_delivered=1, open=0)
    assert store.effects(now - DAY, now) == [a, b]
    assert (a.silent, b.silent) == (1, 0)
    assert [each.rule for each in store.effects(now - 4 * DAY, now - 2 * DAY)] == ["a"]
    assert store.effects(now, now + DAY) == []


def test_a_scan_goes_on_where_the_first_to_say_so_left_it(
    engine: Engine, store: FollowupStore
) -> None:
    now = engine.clock.now()
    assert store.scanned_through("x") is None
    store.scanned("x", None, now)
    store.scanned("x", None, now + DAY)
    store.scanned("x", now, now + HOUR)
    store.scanned("x", now, now + DAY)
    assert store.scanned_through("x") == now + HOUR


def test_a_follow_up_that_nobody_knows(store: FollowupStore) -> None:
    with pytest.raises(FollowupNotFound):
        store.get("0" * 32)


def test_what_an_erasure_takes_leaves_a_follow_up_that_can_be_read(
    engine: Engine, store: FollowupStore
) -> None:
    followup, _ = store.plan(new(engine))
    engine.database["followups"].update_one(
        {"_id": followup.id}, {"$set": dict.fromkeys(HOLDING.anonymise)}
    )
    assert store.get(followup.id).session_id is None
    # The reason is free, or the embedded server keeps it: never a second one by mistake.
    store.plan(new(engine, "rule:other"))
