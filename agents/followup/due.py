"""Whether a follow-up may go out now; pure.

What is known of a conversation, the rules and the time in; send, wait until, or skip out, each
with its reason. How many go out on a day is the day's book's to say (`room`).
"""

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from agents.followup.rules import Rule, Rules
from agents.followups import BY_HAND, Entry
from agents.messages import INTENTS
from agents.quotes import Quote, QuoteState
from orchestrator.context import BOT, CLOSED, Session
from orchestrator.expressions import BadExpression, evaluate
from orchestrator.working_time import WorkingTime

Way = Literal["whatsapp", "n8n", "local"]
MINUTE: Final = dt.timedelta(minutes=1)
# What is still said around an acceptance ("thanks!") is no sign that somebody took it up.
SETTLING: Final = dt.timedelta(hours=1)
LOOK_AGAIN: Final = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Facts:
    """What is known of a conversation when it is decided whether to write.

    `quote` is its newest. `way` is how a message reaches the customer, or None; `sayable` is
    False where WhatsApp would take a template only, and there is none. `busy` while a message
    of the customer's is not answered. `sent` where this reason has been used. `first` is False
    where another planned follow-up of the customer goes before. `earlier` is what went out to
    the customer lately. `due` is when one by hand is to go out.
    """

    session: Session
    quote: Quote | None = None
    opted_out: bool = False
    way: Way | None = "local"
    sayable: bool = True
    busy: bool = False
    sent: bool = False
    first: bool = True
    earlier: tuple[Entry, ...] = ()
    due: dt.datetime | None = None


@dataclass(frozen=True)
class Decision:
    """What to do, and why: `code` is one of the table in docs/followups.md."""

    verdict: Literal["send", "wait", "skip"]
    code: str
    until: dt.datetime | None = None

    @property
    def why(self) -> dict[str, Any]:
        """As it is stored and shown."""
        until = {} if self.until is None else {"until": self.until}
        return {"code": self.code} | until


SEND: Final = Decision("send", "due")


def reason_of(rule: Rule, session: Session, quote: Quote | None) -> str:
    """What a customer is not written to twice for: the quote, or the silence after what the
    customer said last."""
    if rule.on == "conversation_idle" or quote is None:
        began = int(session.created_at.timestamp() * 1000)
        return f"{rule.id}:{session.id}@{began}:{session.seq}"
    return f"{rule.id}:{quote.id}"


def decide(
    rule: Rule, facts: Facts, rules: Rules, now: dt.datetime, calendar: WorkingTime, reason: str
) -> Decision:
    """Whether a rule's follow-up goes out now, when to look again, or why not at all."""
    objection = _objection(facts)
    if objection is not None:
        return Decision("skip", objection)
    when = _when(rule, facts)
    if isinstance(when, str):
        return Decision("skip", when)
    if not _holds(rule, facts):
        return Decision("skip", "condition")
    due, latest = when
    if facts.sent:
        return Decision("skip", "sent_already")
    if now < due:
        return Decision("wait", "not_yet", due)
    if now >= latest:
        return Decision("skip", "too_late")
    wait = _wait(rule, facts, rules, now, due, calendar, reason)
    if wait is None:
        return SEND
    if wait.until is not None and wait.until >= latest:
        return Decision("skip", "too_late")
    return wait


def _objection(facts: Facts) -> str | None:
    session = facts.session
    if session.status == CLOSED:
        return "session_closed"
    if session.owner != BOT:
        return "person_has_it"
    if facts.opted_out:
        return "opted_out"
    if facts.way is None:
        return "no_way_out"
    return None if facts.sayable else "no_template"


def _when(rule: Rule, facts: Facts) -> tuple[dt.datetime, dt.datetime] | str:
    """From when and until when it may go out; or why it does not apply."""
    session, quote = facts.session, facts.quote
    silent_since = session.active_at
    if rule.id == BY_HAND:
        due = facts.due or silent_since
        return due, due + rule.until
    if rule.on == "conversation_idle":
        if session.seq == 0:
            return "nothing_said"
        if quote is not None:
            return "has_quote"
        since = silent_since
    elif quote is None:
        return "no_quote"
    elif rule.on == "quote_accepted":
        if quote.state is not QuoteState.ACCEPTED:
            return "not_accepted"
        if silent_since > quote.state_at + SETTLING:
            return "went_on"
        since = max(quote.state_at, silent_since)
    else:
        if quote.superseded_by is not None:
            return "quote_superseded"
        if not quote.state.open:
            return f"quote_{quote.state.value}"
        since = max(quote.state_at, silent_since)
    if rule.on == "quote_expiring":
        assert quote is not None
        assert rule.before is not None
        return max(quote.valid_until - rule.before, silent_since + rule.quiet), quote.valid_until
    assert rule.after is not None
    due = max(since + rule.after, silent_since + rule.quiet)
    latest = due + rule.until
    if rule.on == "quote_sent":
        assert quote is not None
        latest = min(latest, quote.valid_until)
    return due, latest


def _holds(rule: Rule, facts: Facts) -> bool:
    if rule.condition is None:
        return True
    try:
        return evaluate(rule.condition, known(facts)) is True
    except BadExpression:
        # A name that this conversation has no value for: it is not so.
        return False


def known(facts: Facts) -> dict[str, Any]:
    """What conditions are over."""
    session, quote = facts.session, facts.quote
    shared = session.context["shared"]
    told = [INTENTS.get(each, each) for each in session.intents]
    topics = [each for each in told if each != "general"]
    of_session = {
        "channel": session.channel,
        "language": shared.get("language") or "es",
        "intent": topics[-1] if topics else "general",
        "has_phone": session.phone is not None,
        "has_name": bool(shared.get("name")),
    }
    if quote is None:
        return {"session": of_session}
    of_quote = {
        "total": float(quote.total),
        "currency": quote.currency,
        "product": quote.product,
        "version": quote.version,
        "state": quote.state.value,
    }
    return {"session": of_session, "quote": of_quote}


def _wait(
    rule: Rule,
    facts: Facts,
    rules: Rules,
    now: dt.datetime,
    due: dt.datetime,
    calendar: WorkingTime,
    reason: str,
) -> Decision | None:
    """What it has to wait for, although it is due."""
    if facts.busy:
        return Decision("wait", "being_answered", now + MINUTE)
    if not facts.first:
        return Decision("wait", "another_first", now + LOOK_AGAIN)
    spread = spread_of(rule, rules)
    free = free_at(rule, rules, facts.earlier, now)
    if free > now:
        return Decision("wait", "customer_cap", slot(reason, free, spread, calendar))
    place = slot(reason, due, spread, calendar)
    if now < place:
        code = "spread" if calendar.is_open(due) else "closed"
        return Decision("wait", code, place)
    if not calendar.is_open(now):
        return Decision("wait", "closed", slot(reason, now, spread, calendar))
    return None


def free_at(rule: Rule, rules: Rules, earlier: Iterable[Entry], now: dt.datetime) -> dt.datetime:
    """When the customer's caps allow one more; `now` if they do."""
    earlier = list(earlier)
    free = now
    caps = [(cap, earlier) for cap in rules.caps.per_customer]
    if rule.caps.per_customer is not None:
        caps.append((rule.caps.per_customer, [each for each in earlier if each.rule == rule.id]))
    for cap, counted in caps:
        times = sorted(each.at for each in counted if each.at + cap.within > now)
        if len(times) >= cap.most:
            free = max(free, times[-cap.most] + cap.within)
    return free


def room(
    rule: Rule, rules: Rules, entries: Iterable[Entry], now: dt.datetime
) -> Literal["day_cap", "rule_cap", "minute_cap"] | None:
    """What of a day's book says that no more may go out now."""
    entries = list(entries)
    if len(entries) >= rules.caps.per_day:
        return "day_cap"
    of_rule = sum(each.rule == rule.id for each in entries)
    if rule.caps.per_day is not None and of_rule >= rule.caps.per_day:
        return "rule_cap"
    if sum(now - MINUTE < each.at for each in entries) >= rules.caps.per_minute:
        return "minute_cap"
    return None


def when_there_is_room(
    code: str, reason: str, spread: dt.timedelta, now: dt.datetime, calendar: WorkingTime
) -> dt.datetime:
    """When to try again, for one that a day's book has no room for."""
    if code == "minute_cap":
        # Not the next minute for all of them: they are spread anew.
        again = now + MINUTE
        return slot(f"{reason}/{int(now.timestamp()) // 60}", again, spread, calendar)
    local = now.astimezone(calendar.zone)
    tomorrow = dt.datetime.combine(local.date() + dt.timedelta(days=1), dt.time(), calendar.zone)
    return slot(reason, tomorrow.astimezone(dt.UTC), spread, calendar)


def spread_of(rule: Rule, rules: Rules) -> dt.timedelta:
    """Over how long those that are due together go out: a time that a person chose is meant."""
    return dt.timedelta(0) if rule.id == BY_HAND else rules.spread


def slot(
    reason: str, earliest: dt.datetime, spread: dt.timedelta, calendar: WorkingTime
) -> dt.datetime:
    """The time at which one that is due goes out: within the business's hours, and those that
    are due together one after the other over `spread`; the same for the same reason."""
    opens = calendar.opens(earliest)
    day = opens.astimezone(calendar.zone).date()
    closes = next((end for start, end in calendar.spans(day) if start <= opens < end), opens)
    drawn = hashlib.sha256(reason.encode()).digest()[:8]
    share = int.from_bytes(drawn) / 2**64
    seconds = int(share * min(spread, closes - opens).total_seconds())
    return opens + dt.timedelta(seconds=seconds)
