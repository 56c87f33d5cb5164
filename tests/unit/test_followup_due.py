"""Who is written to, when, and why not; tables for the rules, properties for the times."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.followup.due import (
    Facts,
    decide,
    free_at,
    reason_of,
    room,
    slot,
    when_there_is_room,
)
from agents.followup.rules import Rules, by_hand, load_rules
from agents.followups import Entry
from agents.quotes import Quote, QuoteState
from orchestrator.context import Session
from orchestrator.working_time import WorkingTime, parse_hours

# A Tuesday, noon in Montevideo.
NOW = dt.datetime(2026, 3, 10, 15, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DAY = 24 * HOUR
ZONE = ZoneInfo("America/Montevideo")
CALENDAR = WorkingTime(ZONE, parse_hours("mon-fri 09:00-18:00, sat 09:00-13:00"), "UY")
ALWAYS = WorkingTime(ZONE, parse_hours("mon-sun 00:00-24:00"))
SESSION = Session.from_document(
    {
        "_id": "s1",
        "caller": "local",
        "channel": "web",
        "owner": "bot",
        "status": "open",
        "version": 3,
        "context": {"shared": {"language": "es"}, "agents": {}},
        "seq": 2,
        "fence": 1,
        "turns": [{"intent": "pregunta"}, {"intent": "general"}],
        "created_at": NOW - 9 * DAY,
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
    state=QuoteState.SENT,
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
# Everything goes out the moment that it is due.
AT_ONCE = load_rules().model_copy(update={"spread": dt.timedelta(0)})


def told(rule_id: str, facts: Facts, rules: Rules = AT_ONCE, now: dt.datetime = NOW) -> Any:
    rule = rules.rule(rule_id)
    assert rule is not None
    reason = reason_of(rule, facts.session, facts.quote)
    return decide(rule, facts, rules, now, CALENDAR, reason)


def code(rule_id: str, facts: Facts, **more: Any) -> str:
    return str(told(rule_id, facts, **more).code)


@pytest.mark.parametrize(
    ("rule", "quote"),
    [
        ("information_given", None),
        ("quote_unanswered", QUOTE),
        ("quote_unanswered", replace(QUOTE, state=QuoteState.DRAFT)),
        ("quote_expiring", replace(QUOTE, valid_until=NOW + DAY)),
        ("accepted_waiting", replace(QUOTE, state=QuoteState.ACCEPTED)),
    ],
)
def test_each_rule_finds_its_own(rule: str, quote: Quote | None) -> None:
    facts = Facts(SESSION, quote)
    assert told(rule, facts).verdict == "send"
    others = {each.id for each in AT_ONCE.rules} - {rule, "quote_unanswered"}
    assert all(told(each, facts).verdict != "send" for each in others)


@pytest.mark.parametrize("rule", [rule.id for rule in AT_ONCE.rules])
@pytest.mark.parametrize(
    ("change", "facts", "why"),
    [
        ({"owner": "human"}, {}, "person_has_it"),
        ({"status": "closed"}, {}, "session_closed"),
        ({}, {"opted_out": True}, "opted_out"),
        ({}, {"way": None}, "no_way_out"),
        ({}, {"way": "whatsapp", "sayable": False}, "no_template"),
    ],
)
def test_whatever_the_rule_some_are_never_written_to(
    rule: str, change: dict[str, Any], facts: dict[str, Any], why: str
) -> None:
    session = replace(SESSION, **change)
    for quote in (None, QUOTE, replace(QUOTE, state=QuoteState.ACCEPTED)):
        decision = told(rule, Facts(session, quote, **facts))
        assert (decision.verdict, decision.code) == ("skip", why)


@pytest.mark.parametrize(
    ("rule", "session", "quote", "why"),
    [
        ("quote_unanswered", {}, None, "no_quote"),
        ("quote_unanswered", {}, {"state": QuoteState.ACCEPTED}, "quote_accepted"),
        ("quote_unanswered", {}, {"state": QuoteState.REJECTED}, "quote_rejected"),
        ("quote_unanswered", {}, {"state": QuoteState.EXPIRED}, "quote_expired"),
        ("quote_unanswered", {}, {"superseded_by": "q2"}, "quote_superseded"),
        ("quote_unanswered", {"active_at": NOW - 23 * HOUR}, {}, "not_yet"),
        ("quote_unanswered", {}, {"state_at": NOW - 23 * HOUR}, "not_yet"),
        ("quote_unanswered", {"active_at": NOW - 9 * DAY}, {"state_at": NOW - 9 * DAY}, "too_late"),
        ("quote_expiring", {}, {}, "not_yet"),
        ("quote_expiring", {"active_at": NOW - HOUR}, {"valid_until": NOW + DAY}, "not_yet"),
        ("quote_expiring", {}, {"valid_until": NOW}, "too_late"),
        ("accepted_waiting", {}, {}, "not_accepted"),
        (
            "accepted_waiting",
            {"active_at": NOW - 2 * DAY},
            {"state": QuoteState.ACCEPTED, "state_at": NOW - 3 * DAY},
            "went_on",
        ),
        ("information_given", {"seq": 0}, None, "nothing_said"),
        ("information_given", {}, {}, "has_quote"),
        ("information_given", {"intents": ("general",)}, None, "condition"),
        ("information_given", {"active_at": NOW - 23 * HOUR}, None, "not_yet"),
        ("information_given", {"active_at": NOW - 5 * DAY}, None, "too_late"),
    ],
)
def test_why_a_rule_does_not_write(
    rule: str, session: dict[str, Any], quote: dict[str, Any] | None, why: str
) -> None:
    known = None if quote is None else replace(QUOTE, **quote)
    assert code(rule, Facts(replace(SESSION, **session), known)) == why


def test_what_is_due_waits_for_what_goes_before() -> None:
    facts = Facts(SESSION, QUOTE)
    assert code("quote_unanswered", replace(facts, sent=True)) == "sent_already"
    assert code("quote_unanswered", replace(facts, busy=True)) == "being_answered"
    assert code("quote_unanswered", replace(facts, first=False)) == "another_first"
    earlier = (Entry("f1", "quote_expiring", NOW - HOUR),)
    capped = told("quote_unanswered", replace(facts, earlier=earlier))
    assert (capped.code, capped.until) == ("customer_cap", CALENDAR.opens(NOW + 19 * HOUR))
    at_night = told("quote_unanswered", facts, now=NOW + 12 * HOUR)
    opens = dt.datetime(2026, 3, 11, 12, tzinfo=dt.UTC)
    assert (at_night.code, at_night.until) == ("closed", opens)


def test_what_would_wait_until_it_is_too_late_is_not_sent() -> None:
    # Expires on Sunday morning, becomes due on Saturday after closing.
    late = dt.datetime(2026, 3, 15, 10, tzinfo=dt.UTC)
    saturday = dt.datetime(2026, 3, 14, 20, tzinfo=dt.UTC)
    quote = replace(QUOTE, valid_until=late)
    assert code("quote_expiring", Facts(SESSION, quote), now=saturday) == "too_late"


def test_a_holiday_is_no_working_day() -> None:
    # 1 May 2026, a Friday.
    now = dt.datetime(2026, 5, 1, 15, tzinfo=dt.UTC)
    session = replace(SESSION, active_at=now - 26 * HOUR)
    waits = told("information_given", Facts(session), now=now)
    assert (waits.code, waits.until) == ("closed", dt.datetime(2026, 5, 2, 12, tzinfo=dt.UTC))


def test_a_condition_is_over_session_and_quote() -> None:
    rule = AT_ONCE.rules[1].model_copy(update={"condition": "quote.total > 100.0"})
    facts = Facts(SESSION, QUOTE)
    assert decide(rule, facts, AT_ONCE, NOW, CALENDAR, "r").code == "condition"
    dear = replace(facts, quote=replace(QUOTE, total=Decimal("100.01")))
    assert decide(rule, dear, AT_ONCE, NOW, CALENDAR, "r").verdict == "send"
    # A name that has no value is not true, and no crash.
    odd = rule.model_copy(update={"condition": "session.nothing == 1"})
    assert decide(odd, facts, AT_ONCE, NOW, CALENDAR, "r").code == "condition"


def test_a_silence_is_one_reason_and_the_next_one_another() -> None:
    rule = AT_ONCE.rule("information_given")
    assert rule is not None
    first = reason_of(rule, SESSION, None)
    assert reason_of(rule, replace(SESSION, active_at=NOW, version=9), None) == first
    assert reason_of(rule, replace(SESSION, seq=3), None) != first
    # Another conversation that was given the same name.
    assert reason_of(rule, replace(SESSION, created_at=NOW), None) != first


def test_by_hand_only_the_conversation_and_its_time_count() -> None:
    rule = by_hand("custom", 100)

    def decided(due: dt.datetime, **facts: Any) -> Any:
        known = Facts(replace(SESSION, seq=0), None, due=due, **facts)
        # Spread like all others, but for what a person chose a time for.
        return decide(rule, known, load_rules(), NOW, CALENDAR, "by_hand:t1")

    assert decided(NOW).verdict == "send"
    assert decided(NOW + HOUR).until == NOW + HOUR
    assert decided(NOW, opted_out=True).code == "opted_out"
    assert decided(NOW, earlier=(Entry("f", "x", NOW - HOUR),)).code == "customer_cap"


# --- times, whatever they are -------------------------------------------------------------

moments = st.integers(0, 2 * 365 * 86_400).map(
    lambda seconds: dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
)
reasons = st.text("abc123:", min_size=1, max_size=12)
spreads = st.timedeltas(dt.timedelta(0), 6 * HOUR)


@given(reasons, moments, spreads, st.sampled_from([CALENDAR, ALWAYS]))
def test_a_place_is_when_the_business_is_open_and_at_most_the_spread_after_it_could_be(
    reason: str, earliest: dt.datetime, spread: dt.timedelta, calendar: WorkingTime
) -> None:
    place = slot(reason, earliest, spread, calendar)
    assert calendar.opens(earliest) <= place <= calendar.opens(earliest) + spread
    assert calendar.is_open(place)
    assert slot(reason, earliest, spread, calendar) == place


@given(
    st.sampled_from(AT_ONCE.rules),
    moments,
    st.timedeltas(dt.timedelta(0), 8 * DAY),
    st.lists(st.tuples(st.timedeltas(dt.timedelta(0), 20 * DAY), st.booleans()), max_size=5),
    st.booleans(),
    spreads,
)
def test_nothing_goes_out_when_it_must_not(
    rule: Any,
    now: dt.datetime,
    silent: dt.timedelta,
    went: list[tuple[dt.timedelta, bool]],
    accepted: bool,
    spread: dt.timedelta,
) -> None:
    rules = load_rules().model_copy(update={"spread": spread})
    session = replace(SESSION, active_at=now - silent)
    quote = replace(
        QUOTE,
        state=QuoteState.ACCEPTED if accepted else QuoteState.SENT,
        state_at=now - silent,
        valid_until=now - silent + 9 * DAY,
    )
    earlier = tuple(
        Entry(str(n), rule.id if same else "other", now - ago) for n, (ago, same) in enumerate(went)
    )
    facts = Facts(session, None if rule.on == "conversation_idle" else quote, earlier=earlier)
    decision = decide(rule, facts, rules, now, CALENDAR, "r")
    if decision.verdict == "send":
        assert CALENDAR.is_open(now)
        assert silent >= rule.quiet
        if rule.after is not None:
            assert silent >= rule.after
        for cap in rules.caps.per_customer:
            assert sum(now - each.at < cap.within for each in earlier) < cap.most
        own = rule.caps.per_customer
        if own is not None:
            mine = [each for each in earlier if each.rule == rule.id]
            assert sum(now - each.at < own.within for each in mine) < own.most
    elif decision.verdict == "wait":
        # It comes back later, and then within the business's hours or to look again.
        assert decision.until > now
    if decision.verdict == "wait" and decision.code in ("spread", "closed"):
        # Nothing else speaks against it: at that time it goes out, if nothing happens.
        then = decide(rule, facts, rules, decision.until, CALENDAR, "r")
        assert then.verdict == "send"


@given(st.lists(st.timedeltas(dt.timedelta(0), 40 * DAY), max_size=8), st.booleans())
def test_a_customers_caps_are_free_when_they_say(ago: list[dt.timedelta], own: bool) -> None:
    rule = AT_ONCE.rule("quote_unanswered" if own else "quote_expiring")
    assert rule is not None
    earlier = [Entry(str(n), rule.id, NOW - each) for n, each in enumerate(ago)]
    free = free_at(rule, AT_ONCE, earlier, NOW)
    assert free_at(rule, AT_ONCE, earlier, free) == free
    if free > NOW:
        just_before = free - dt.timedelta(milliseconds=1)
        assert free_at(rule, AT_ONCE, earlier, just_before) == free


def test_a_day_has_room_for_so_many() -> None:
    rule = AT_ONCE.rule("information_given")
    assert rule is not None
    caps = AT_ONCE.caps
    long_ago = [Entry(str(n), "other", NOW - 5 * HOUR) for n in range(caps.per_day)]
    assert room(rule, AT_ONCE, long_ago, NOW) == "day_cap"
    assert room(rule, AT_ONCE, long_ago[1:], NOW) is None
    own = [Entry(str(n), rule.id, NOW - 5 * HOUR) for n in range(rule.caps.per_day or 0)]
    assert room(rule, AT_ONCE, own, NOW) == "rule_cap"
    burst = [Entry(str(n), "other", NOW) for n in range(caps.per_minute)]
    assert room(rule, AT_ONCE, burst, NOW) == "minute_cap"
    assert room(rule, AT_ONCE, burst, NOW + dt.timedelta(minutes=1)) is None


def test_what_finds_no_room_comes_back_when_there_may_be() -> None:
    rules = load_rules()
    tomorrow = dt.datetime(2026, 3, 11, 12, tzinfo=dt.UTC)
    for full in ("day_cap", "rule_cap"):
        again = when_there_is_room(full, "r", rules.spread, NOW, CALENDAR)
        assert tomorrow <= again <= tomorrow + rules.spread
    again = when_there_is_room("minute_cap", "r", rules.spread, NOW, CALENDAR)
    assert NOW + dt.timedelta(minutes=1) <= again <= NOW + dt.timedelta(minutes=1) + rules.spread


def test_five_hundred_that_are_due_together_do_not_go_out_in_one_minute() -> None:
    rules = load_rules()
    night = dt.datetime(2026, 3, 11, 5, tzinfo=dt.UTC)
    minutes: dict[int, int] = {}
    for n in range(500):
        place = slot(f"rule:{n}", night, rules.spread, CALENDAR)
        minutes[int(place.timestamp()) // 60] = minutes.get(int(place.timestamp()) // 60, 0) + 1
    assert len(minutes) == 60
    assert max(minutes.values()) <= rules.caps.per_minute
