"""What is known of a conversation, read from the stores for `due.decide`; and finding those that
may be due.

Keeps secret how they are found at any number of sessions: each rule goes through sessions in the
order in which they were last touched, and through quotes in the order in which they end or were
accepted, from where it got to the last time. A pass ends after so many. Nothing is remembered but
how far each rule has got: whoever dies in a pass has it done again, and a reason counts once.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from agents.channels import WINDOW
from agents.followup.due import Decision, Facts, Way, decide, reason_of
from agents.followup.rules import Rule, Rules, load_rules
from agents.followups import Followup, FollowupState, NewFollowup
from agents.quotes import OPEN, Quote, QuoteState
from agents.stores import stores_of
from orchestrator.context import Session, ordering_key
from orchestrator.engine import Engine
from orchestrator.settings import Settings, pairs

BATCH: Final = 200
FIRST_WINDOW: Final = dt.timedelta(minutes=10)
INSTANT: Final = dt.timedelta(milliseconds=1)
EVERYTHING: Final = 1_000_000
# Another follow-up that is planned for longer ahead does not hold one up.
AHEAD: Final = dt.timedelta(days=1)

Found = list[tuple[str, dt.datetime]]
Read = Callable[[dt.datetime, dt.datetime, int], Found]


@dataclass(frozen=True)
class Look:
    """What a rule says of a conversation."""

    rule: Rule
    session: Session
    quote: Quote | None
    reason: str
    decision: Decision


class Looking:
    """Reads an engine's stores. Raises StoreUnavailable as they do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._stores = stores_of(engine)
        self.rules: Rules = load_rules(engine.settings.followups_file)
        self.calendar = engine.settings.working_time

    def customer(self, session: Session) -> str:
        """The name of a session's customer in books: it says nothing of whom."""
        return self._engine.contacts.alias(session.address)

    # -- one conversation --------------------------------------------------------------

    def look(
        self,
        rule: Rule,
        session: Session,
        quote: Quote | None,
        now: dt.datetime,
        followup: Followup | None = None,
    ) -> Look:
        """What a rule says of a conversation now; `followup`, where it is planned already."""
        known = followup.reason if followup is not None else None
        reason = known or reason_of(rule, session, quote)
        due = None if followup is None else followup.due_at
        facts = Facts(session, quote, due=due)
        decision = self._decided(rule, facts, now, reason)
        if decision.verdict != "skip" and decision.code != "not_yet":
            # Only now is the rest worth reading.
            facts = self._facts(rule, facts, now, reason, followup)
            decision = self._decided(rule, facts, now, reason)
        return Look(rule, session, quote, reason, decision)

    def _decided(self, rule: Rule, facts: Facts, now: dt.datetime, reason: str) -> Decision:
        return decide(rule, facts, self.rules, now, self.calendar, reason)

    def _facts(
        self, rule: Rule, facts: Facts, now: dt.datetime, reason: str, followup: Followup | None
    ) -> Facts:
        session = facts.session
        engine, followups = self._engine, self._stores.followups
        known = followup or followups.of_reason(reason)
        own = None if known is None else known.id
        used = known is not None and known.state not in (
            FollowupState.PLANNED,
            FollowupState.SKIPPED,
        )
        customer = self.customer(session)
        book = followups.book(f"customer {customer}")
        way = way_of(session, self._settings)
        waiting = engine.store.of_key(ordering_key(session.id), session.seq, BATCH)
        return Facts(
            session=session,
            quote=facts.quote,
            opted_out=any(map(engine.contacts.opted_out, session.addresses)),
            way=way,
            sayable=way != "whatsapp" or self._sayable(rule, session, now),
            busy=any(not task.state.final for task in waiting),
            sent=used and followup is None,
            first=not any(
                _goes_before(other, rule.priority, own)
                for other in followups.planned_for(customer)
                if other.id != own and other.due_at < now + AHEAD
            ),
            earlier=tuple(entry for entry in book if entry.id != own),
            due=facts.due,
        )

    def _sayable(self, rule: Rule, session: Session, now: dt.datetime) -> bool:
        """Whether WhatsApp takes the message: as it is, or as a template."""
        if rule.message in pairs(self._settings.whatsapp_templates):
            return True
        heard = self._engine.contacts.last_heard(session.phone or "", "whatsapp")
        return heard is not None and now - heard <= WINDOW

    # -- all of them -------------------------------------------------------------------

    def found(self, now: dt.datetime, most: int) -> Iterator[Look]:
        """What the rules say of conversations that something has become true of since the last
        time, `most` of them for each rule; go through all of it, and it goes on there the next
        time."""
        for rule in self.rules.rules:
            for name, oldest, end, read in self._sources(rule, now):
                left = most
                for session_ids, done in self._scan(name, oldest, end, read):
                    yield from self.looks([rule], session_ids, now)
                    done()
                    left -= len(session_ids)
                    if left <= 0:
                        break

    def looks(
        self, rules: Iterable[Rule], session_ids: Iterable[str], now: dt.datetime
    ) -> Iterator[Look]:
        """What rules say of conversations, in the order in which they are given."""
        ordered = list(dict.fromkeys(session_ids))
        sessions = self._engine.sessions.many(ordered)
        quotes = self._stores.quotes.newest_of(sessions)
        for session in (sessions[each] for each in ordered if each in sessions):
            for rule in rules:
                yield self.look(rule, session, quotes.get(session.id), now)

    def recent(self, now: dt.datetime, most: int) -> list[str]:
        """Conversations that rules may still have to do with, those that were touched last
        first."""
        longest = max((rule.lag + rule.until for rule in self.rules.rules), default=AHEAD)
        return self._engine.sessions.last_touched(now - longest, most)

    def _sources(
        self, rule: Rule, now: dt.datetime
    ) -> Iterator[tuple[str, dt.datetime, dt.datetime, Read]]:
        sessions = self._engine.sessions
        oldest = now - rule.lag - rule.until
        yield f"{rule.id}/sessions", oldest, now - rule.lag, sessions.touched_between
        quotes = self._stores.quotes
        if rule.on == "quote_expiring":
            assert rule.before is not None
            for state in sorted(OPEN):
                name = f"{rule.id}/quotes/{state.value}"
                yield name, now, now + rule.before, _reading(quotes.ending, state)
        if rule.on == "quote_accepted":
            assert rule.after is not None
            end = now - rule.after
            read = _reading(quotes.standing, QuoteState.ACCEPTED)
            yield f"{rule.id}/quotes", end - rule.until, end, read

    def _scan(
        self, name: str, oldest: dt.datetime, end: dt.datetime, read: Read
    ) -> Iterator[tuple[list[str], Callable[[], None]]]:
        """Piece by piece: sessions, and how to say that this piece is done."""
        followups = self._stores.followups
        through = followups.scanned_through(name)
        start = oldest if through is None else max(through, oldest)
        width = FIRST_WINDOW
        while start < end:
            stop = min(start + width, end)
            found = read(start, stop, BATCH)
            if len(found) == BATCH:
                # There may be more: up to the last moment, which may have others.
                stop = found[-1][1]
                if stop == start:
                    stop = start + INSTANT
                    found = read(start, stop, EVERYTHING)
                found = [each for each in found if each[1] < stop]
            done = partial(followups.scanned, name, through, stop)
            yield [session_id for session_id, _ in found], done
            start = through = stop
            width = width * 2 if len(found) < BATCH // 4 else FIRST_WINDOW

    def new(self, look: Look, now: dt.datetime) -> NewFollowup:
        """The follow-up that a look asks for."""
        return NewFollowup(
            reason=look.reason,
            rule=look.rule.id,
            message=look.rule.message,
            session_id=look.session.id,
            customer=self.customer(look.session),
            due_at=look.decision.until or now,
            quote_id=None if look.quote is None else look.quote.id,
            priority=look.rule.priority,
            why=look.decision.why,
        )


def way_of(session: Session, settings: Settings) -> Way | None:
    """How a message that nobody waits for reaches the customer."""
    by_whatsapp = session.channel == "whatsapp" and session.phone is not None
    if by_whatsapp and settings.whatsapp_sends:
        return "whatsapp"
    if settings.n8n_told:
        return "n8n"
    return None if by_whatsapp else "local"


def _goes_before(other: Followup, priority: int, own: str | None) -> bool:
    if other.priority != priority:
        return other.priority > priority
    return own is None or other.id < own


def _reading(between: Callable[..., Found], state: QuoteState) -> Read:
    return lambda since, until, limit: between(state, since, until, limit)
