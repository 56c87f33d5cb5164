"""Three days of a desk with 200 conversations: what goes out, and when, to the millisecond.

An oracle says so by itself: from what the customers did, the rules as docs/followups.md has them,
a calendar written down by hand and the passes' times. It shares no code with the desk.
"""

import contextlib
import datetime as dt
import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.followup.agent import agent
from agents.followup.sending import Said, Sending
from agents.followups import Followup
from agents.quotes import QuoteClosed
from agents.stores import stores_of
from orchestrator.engine import Engine
from tests.integration.followup_desk import FollowupDesk

# A Tuesday, 09:00 in Montevideo; the Wednesday is Uruguay's Independence Day.
START = dt.datetime(2027, 8, 24, 12, tzinfo=dt.UTC)
END = START + dt.timedelta(days=3, hours=8)
HOUR, MS = dt.timedelta(hours=1), dt.timedelta(milliseconds=1)
DAY = 24 * HOUR
RULES = """
caps:
  per_customer: [{most: 1, within: 20h}, {most: 2, within: 14d}]
  per_day: 45
  per_minute: 3
spread: 45m
effect_within: 7d
rules:
  - {id: expiring, on: quote_expiring, before: 48h, quiet: 4h, message: quote_expiring,
     priority: 90}
  - {id: unanswered, on: quote_sent, after: 24h, until: 5d, message: quote_sent, priority: 70}
  - {id: waiting, on: quote_accepted, after: 36h, until: 5d, message: quote_accepted, priority: 60}
  - {id: idle, on: conversation_idle, after: 24h, until: 3d, message: conversation_idle,
     priority: 30, if: session.intent != 'general', caps: {per_day: 12}}
"""


# --- what the customers do ------------------------------------------------------------------


@dataclass
class Customer:
    """One conversation: what it is about, and what happens in it, (when, what) in order."""

    name: str
    intent: str
    phone: str | None
    happens: list[tuple[dt.datetime, str]]
    days: int = 15


def customers(seed: int) -> list[Customer]:
    drawn = random.Random(seed)

    def between(first: dt.datetime, last: dt.datetime) -> dt.datetime:
        return first + dt.timedelta(milliseconds=drawn.randrange(int((last - first) / MS)))

    made = []
    for n in range(200):
        kind = drawn.choices(["quote", "info", "expiring", "accepted", "chat"], [8, 5, 3, 2, 1])[0]
        began = between(START - 30 * HOUR, START + 44 * HOUR)
        days = 15
        if kind == "expiring":
            days = 15
            began = between(START - 15 * DAY + 20 * HOUR, START - 11 * DAY)
        happens = [(began, "said")]
        if kind in ("quote", "expiring", "accepted"):
            happens.append((began + dt.timedelta(seconds=2), "quoted"))
        if kind == "accepted":
            happens.append((began + dt.timedelta(minutes=7), "accept"))
        happening = drawn.random()
        later = between(max(began, START) + HOUR, END)
        if happening < 0.15:
            happens.append((later, "said"))
        elif happening < 0.25:
            happens += [(later, "take"), (later + 3 * HOUR, "give back")]
        elif happening < 0.30:
            happens.append((later, "take"))
        elif happening < 0.36:
            happens.append((later, "stop"))
        elif happening < 0.40:
            happens.append((later, "close"))
        elif happening < 0.48 and kind in ("quote", "expiring"):
            happens.append((later, drawn.choice(["accept", "reject"])))
        # Some are the same customer in two conversations.
        phone = f"+598991{n // 2:05d}" if n % 10 in (0, 1) else None
        intent = {"info": "pregunta", "chat": "general"}.get(kind, "cotizacion")
        made.append(Customer(f"c{n}", intent, phone, sorted(happens), days))
    return made


# --- the oracle -----------------------------------------------------------------------------

HOLIDAYS = {dt.date(2027, 8, 25)}
UTC_TO_LOCAL = dt.timedelta(hours=-3)  # Montevideo, without summer time


def opening(day: dt.date) -> tuple[dt.datetime, dt.datetime] | None:
    if day in HOLIDAYS or day.weekday() == 6:
        return None
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC) - UTC_TO_LOCAL
    return midnight + 9 * HOUR, midnight + (13 if day.weekday() == 5 else 18) * HOUR


def next_open(moment: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """When it is open from this moment on, and until when."""
    day = (moment + UTC_TO_LOCAL).date()
    while True:
        hours = opening(day)
        if hours is not None and moment < hours[1]:
            return max(moment, hours[0]), hours[1]
        day += dt.timedelta(days=1)


def place(reason: str, moment: dt.datetime) -> dt.datetime:
    begins, ends = next_open(moment)
    bits = int.from_bytes(hashlib.sha256(reason.encode()).digest()[:8], "big")
    span = min(45 * 60, (ends - begins).total_seconds())
    return begins + dt.timedelta(seconds=int(span * (bits / 2**64)))


PRIORITY = {"expiring": 90, "unanswered": 70, "waiting": 60, "idle": 30}
ORDER = list(PRIORITY)


@dataclass
class Known:
    """A conversation as the oracle knows it."""

    name: str
    intent: str
    customer: str
    began: dt.datetime
    active: dt.datetime
    touched: dt.datetime
    turns: int = 0
    open: bool = True
    person: bool = False
    stopped: bool = False
    quote: str | None = None
    standing: str = ""
    since: dt.datetime = START
    ends: dt.datetime = START


@dataclass
class Plan:
    n: int
    known: Known
    rule: str
    reason: str
    due: dt.datetime
    over: bool = False


@dataclass
class Oracle:
    """Says what goes out, event by event."""

    conversations: dict[str, Known] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    sent: dict[tuple[str, str], dt.datetime] = field(default_factory=dict)
    log: list[tuple[dt.datetime, str, str]] = field(default_factory=list)  # when, whom, which
    checks: list[tuple[dt.datetime, int, str]] = field(default_factory=list)
    waited: Counter[str] = field(default_factory=Counter)

    def happened(self, name: str, what: str, at: dt.datetime, customer: Customer, quote: Any):
        known = self.conversations.get(name)
        if known is None:
            who = customer.phone or name
            known = Known(name, customer.intent, who, at, at, at)
            self.conversations[name] = known
        if what == "quoted":
            known.quote, known.standing, known.since = quote.id, "open", at
            known.ends = at + customer.days * DAY
            return
        if what in ("accept", "reject"):
            if known.standing == "open" and at < known.ends:
                known.standing, known.since = what, at
            return
        if what == "stop":
            for each in self.conversations.values():
                if each.customer == known.customer:
                    each.stopped = True
            return
        if what == "take" and not known.open:
            return
        if what in ("give back", "close") and not (known.open if what == "close" else known.person):
            return
        if what == "said":
            known.turns += 1
            known.open = True
            known.stopped = any(
                each.stopped
                for each in self.conversations.values()
                if each.customer == known.customer
            )
        known.person = {"take": True, "give back": False, "close": False}.get(what, known.person)
        known.open = known.open and what != "close"
        known.active = known.touched = at

    def reason(self, known: Known, rule: str) -> str:
        if rule == "idle":
            # What a task's number in its conversation is: they are counted from 1.
            return f"idle:{known.name}@{int(known.began.timestamp() * 1000)}:{known.turns}"
        return f"{rule}:{known.quote}"

    def when(self, known: Known, rule: str) -> tuple[dt.datetime, dt.datetime] | None:
        """From when and until when a rule holds."""
        if known.person or not known.open or known.stopped:
            return None
        if rule == "idle":
            if known.quote is not None or known.intent == "general":
                return None
            return known.active + DAY, known.active + 4 * DAY
        if known.quote is None:
            return None
        if rule == "waiting":
            if known.standing != "accept" or known.active > known.since + HOUR:
                return None
            due = max(known.since, known.active) + 36 * HOUR
            return due, due + 5 * DAY
        if known.standing != "open":
            return None
        if rule == "expiring":
            return max(known.ends - 48 * HOUR, known.active + 4 * HOUR), known.ends
        due = max(known.since, known.active) + DAY
        return due, min(due + 5 * DAY, known.ends)

    def passed(self, at: dt.datetime) -> None:
        """A pass finds what is due."""
        found = []
        for known in self.conversations.values():
            for rule in ORDER:
                times = self.when(known, rule)
                if times is None or not times[0] < at < times[1]:
                    continue
                reason = self.reason(known, rule)
                plan = self.plans.get(reason)
                if reason in self.dead or (plan is not None and not plan.over):
                    continue
                found.append((ORDER.index(rule), known.touched, reason, known, rule))
        new = []
        for _, _, reason, known, rule in sorted(found, key=lambda each: each[:3]):
            n = self.plans[reason].n if reason in self.plans else len(self.plans)
            plan = Plan(n, known, rule, reason, at)
            decided, until = self.decided(plan, at)
            if decided == "skip":
                self.dead.add(reason)
                continue
            plan.due = until or at
            self.plans[reason] = plan
            new.append(plan)
        for plan in sorted(new, key=lambda each: each.n):
            self.check(plan, at)

    def decided(self, plan: Plan, at: dt.datetime) -> tuple[str, dt.datetime | None]:
        known, rule = plan.known, plan.rule
        times = self.when(known, rule)
        if times is None or self.reason(known, rule) != plan.reason:
            return "gone", None
        due, latest = times
        if at < due:
            return "wait", due
        if at >= latest:
            return "skip", None
        until = self.held_up(plan, at, due)
        if until is None:
            return "send", None
        return ("skip", None) if until >= latest else ("wait", until)

    def held_up(self, plan: Plan, at: dt.datetime, due: dt.datetime) -> dt.datetime | None:
        for other in self.plans.values():
            if other.over or other.reason == plan.reason or other.due >= at + DAY:
                continue
            if other.known.customer != plan.known.customer:
                continue
            rank = (-PRIORITY[other.rule], other.n) < (-PRIORITY[plan.rule], plan.n)
            if rank:
                self.waited["another first"] += 1
                return at + HOUR
        mine = sorted(t for t, who, _ in self.log if who == plan.known.customer)
        free = at
        for most, within in ((1, 20 * HOUR), (2, 14 * DAY)):
            recent = [t for t in mine if t + within > at]
            if len(recent) >= most:
                free = max(free, recent[-most] + within)
        if free > at:
            self.waited["customer"] += 1
            return place(plan.reason, free)
        if at < place(plan.reason, due):
            self.waited["spread or closed"] += 1
            return place(plan.reason, due)
        if next_open(at)[0] != at:
            self.waited["closed"] += 1
            return place(plan.reason, at)
        return None

    def check(self, plan: Plan, at: dt.datetime) -> None:
        decided, until = self.decided(plan, at)
        if decided == "send":
            until = self.full(plan, at)
        if decided in ("gone", "skip"):
            plan.over = True
            if decided == "skip":
                self.dead.add(plan.reason)
        elif until is not None:
            plan.due = until
            heapq.heappush(self.checks, (until + MS, plan.n, plan.reason))
        else:
            plan.over = True
            self.dead.add(plan.reason)
            self.log.append((at, plan.known.customer, plan.rule))
            assert (plan.known.name, plan.reason) not in self.sent
            self.sent[plan.known.name, plan.reason] = at
            plan.known.touched = at

    def full(self, plan: Plan, at: dt.datetime) -> dt.datetime | None:
        day = (at + UTC_TO_LOCAL).date()
        today = [each for each in self.log if (each[0] + UTC_TO_LOCAL).date() == day]
        of_rule = sum(each[2] == plan.rule for each in today)
        if len(today) >= 45 or (plan.rule == "idle" and of_rule >= 12):
            self.waited["day"] += 1
            midnight = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
            return place(plan.reason, midnight - UTC_TO_LOCAL)
        minute = dt.timedelta(minutes=1)
        if sum(at - minute < each[0] for each in today) >= 3:
            self.waited["minute"] += 1
            return place(f"{plan.reason}/{int(at.timestamp()) // 60}", at + minute)
        return None

    def run_until(self, at: dt.datetime) -> None:
        """The checks that are due before a time."""
        while self.checks and self.checks[0][0] <= at:
            when, _, reason = heapq.heappop(self.checks)
            plan = self.plans[reason]
            if not plan.over:
                self.check(plan, when)


# --- the desk -------------------------------------------------------------------------------


@pytest.fixture
def settings(settings: Any, tmp_path: Any) -> Any:
    (tmp_path / "rules.yaml").write_text(RULES)
    return settings.model_copy(update={"followups_file": tmp_path / "rules.yaml"})


class Time:
    """The database's time and ours, set by hand."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = START
        monkeypatch.setattr(engine.clock, "now", lambda: self.at)
        monkeypatch.setattr(engine.store, "read_clock", lambda: None)


@pytest.mark.timeout(300)
def test_the_follow_ups_of_200_conversations_go_out_exactly_as_the_rules_say(
    engine: Engine, workers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time(engine, monkeypatch)
    desk = FollowupDesk(engine, workers(agent))
    quotes, oracle = stores_of(engine).quotes, Oracle()
    made: dict[str, Any] = {}
    # In place of workflow runs, whose steps other tests take: what a run does at which time.
    waiting: list[tuple[dt.datetime, str]] = []

    def start(self: Sending, followup: Followup) -> bool:
        stores_of(engine).followups.started(followup, "run")
        heapq.heappush(waiting, (time.at, followup.id))
        return True

    def step(followup_id: str) -> None:
        told = sending.check(followup_id)
        if told["verdict"] == "send":
            told = sending.send(followup_id, "task", Said("¿Seguimos?", "quote_sent", "es"))
        if told["verdict"] == "wait":
            until = dt.datetime.fromisoformat(told["until"])
            heapq.heappush(waiting, (until + MS, followup_id))

    monkeypatch.setattr(Sending, "start", start)
    sending = Sending(engine)

    def happen(customer: Customer, what: str) -> None:
        name = customer.name
        if what == "said":
            told = {"phone": customer.phone, "trusted": False}
            desk.said(name, customer.intent, **told)
        elif what == "quoted":
            made[name] = desk.quoted(name, days=customer.days)
        elif what in ("accept", "reject"):
            with contextlib.suppress(QuoteClosed):
                quotes.change(made[name].id, what)
        elif what == "take":
            if engine.sessions.get(name).status == "open":
                engine.sessions.take(name, "ana")
        elif what == "give back":
            engine.sessions.give_back(name)
        elif what == "stop":
            engine.contacts.opt_out(engine.sessions.get(name).address)
        else:
            engine.sessions.close(name)
        oracle.happened(name, what, time.at, customer, made.get(name))

    events = sorted(
        (at, n, what, customer)
        for n, customer in enumerate(customers(7))
        for at, what in customer.happens
        if at < END
    )
    passes = [START + n * HOUR for n in range(int((END - START) / HOUR))]
    while events or passes:
        candidates = [
            *(at for at, _ in waiting[:1]),
            *passes[:1],
            *(event[0] for event in events[:1]),
        ]
        time.at = min(candidates)
        oracle.run_until(time.at - MS)
        if events and events[0][0] == time.at:
            _, _, what, customer = events.pop(0)
            happen(customer, what)
        elif passes and passes[0] == time.at:
            passes.pop(0)
            sending.find(10_000)
            oracle.passed(time.at)
        while waiting and waiting[0][0] == time.at:
            step(heapq.heappop(waiting)[1])
    oracle.run_until(time.at)

    sent = {
        (each["session_id"], each["reason"]): each["sent_at"]
        for each in desk.followups()
        if each["sent_at"] is not None
    }
    wrong = sorted(
        key for key in sent.keys() | oracle.sent if sent.get(key) != oracle.sent.get(key)
    )
    assert [(key, sent.get(key), oracle.sent.get(key)) for key in wrong] == []
    # It was worth it: all that can hold one up did so, and much went out.
    assert len(sent) > 100
    assert {"another first", "customer", "spread or closed", "day", "minute"} <= set(oracle.waited)
    assert Counter(reason.partition(":")[0] for _, reason in sent).keys() == PRIORITY.keys()
    # And by what everybody can see, whatever the oracle says.
    local = [at + UTC_TO_LOCAL for at in sent.values()]
    assert all(9 <= each.hour < 18 and each.date() not in HOLIDAYS for each in local)
    assert max(Counter(each.date() for each in local).values()) == 45
    assert max(Counter(int(each.timestamp()) // 60 for each in local).values()) <= 3
    said = Counter(
        each["session_id"]
        for each in engine.database["messages"].find({"role": "assistant"})
        if "follow_up" in each["facts"]
    )
    assert said == Counter(name for name, _ in sent)
