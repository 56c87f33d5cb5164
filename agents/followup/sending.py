"""A follow-up's life: looked at once more, said, measured.

Keeps secret which writes follow which. Its place in the books comes first, then the session's
compare-and-set, which is the commit point of the message and of what leaves; then the mark. Each
is found done by a repetition.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from agents.followup.due import (
    Decision,
    free_at,
    reason_of,
    room,
    slot,
    spread_of,
    when_there_is_room,
)
from agents.followup.looking import BATCH, Look, Looking
from agents.followup.rules import Rule, by_hand
from agents.followups import (
    BY_HAND,
    EFFECTS,
    Entry,
    Followup,
    FollowupNotFound,
    FollowupState,
    NewFollowup,
)
from agents.messages import MessageKind
from agents.quotes import QuoteState
from agents.stores import stores_of
from orchestrator.context import Session, ordering_key
from orchestrator.definition_store import WorkflowNotFound
from orchestrator.engine import Engine
from orchestrator.errors import Conflict, NotFound, StaleContext
from orchestrator.logs import log
from orchestrator.outbox import EntryState

WORKFLOW: Final = "followup_workflow"
TRIES: Final = 20
DAY_KEPT: Final = dt.timedelta(days=2)
# A pass that is at work starts what it plans by itself.
UNSTARTED: Final = dt.timedelta(seconds=30)
# Beat asks for one every minute, and it must stay far from its time limits.
PASS_S: Final = 40.0

Document = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What a follow-up says, and how a WhatsApp template would."""

    text: str
    kind: str
    language: str
    values: Sequence[str] = ()


class Sending:
    """One per engine is enough, and several do no harm. Raises StoreUnavailable as stores do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._followups = stores_of(engine).followups
        self._quotes = stores_of(engine).quotes
        self._looking = Looking(engine)

    # -- planning ----------------------------------------------------------------------

    def find(self, most: int) -> Document:
        """Plan what has become due, and give a run to each that has none.

        Returns {planned, started, looked_at}.
        """
        now = self._engine.clock.now()
        until = self._engine.clock.monotonic() + PASS_S
        planned = looked_at = started = 0
        for look in self._looking.found(now, most):
            looked_at += 1
            if look.decision.verdict == "skip" or look.decision.code == "not_yet":
                continue
            followup, created = self._followups.plan(self._looking.new(look, now))
            if created:
                planned += 1
                started += self.start(followup)
            if self._engine.clock.monotonic() > until:
                break  # the next pass goes on from the last whole piece
        for followup in self._followups.unstarted(now - UNSTARTED, most):
            started += self.start(followup)
        return {"planned": planned, "started": started, "looked_at": looked_at}

    def would(self, most: int) -> list[Look]:
        """What the rules say now of the conversations that were touched last: nothing is written.

        Of each conversation that nothing is to be sent to, the one look that tells most.
        """
        now = self._engine.clock.now()
        by_session: dict[str, list[Look]] = {}
        session_ids = self._looking.recent(now, most)
        for start in range(0, len(session_ids), BATCH):
            batch = session_ids[start : start + BATCH]
            for look in self._looking.looks(self._looking.rules.rules, batch, now):
                by_session.setdefault(look.session.id, []).append(look)
        told: list[Look] = []
        for looks in by_session.values():
            due = [look for look in looks if _rank(look) < 2]
            told += due or [min(looks, key=lambda look: (_rank(look), -look.rule.priority))]
        return sorted(told, key=lambda look: (_rank(look), look.session.active_at))

    def schedule(
        self,
        reason: str,
        session: Session,
        message: MessageKind,
        due_at: dt.datetime,
        *,
        text: str | None,
        priority: int,
        by: str,
    ) -> Followup:
        """Plan a follow-up by hand, once for its reason."""
        quote = self._quotes.newest_of([session.id]).get(session.id)
        followup, _ = self._followups.plan(
            NewFollowup(
                reason=reason,
                rule=BY_HAND,
                message=message,
                session_id=session.id,
                customer=self._looking.customer(session),
                due_at=due_at,
                quote_id=None if quote is None else quote.id,
                text=text,
                by=by,
                priority=priority,
            )
        )
        self.start(followup)
        return followup

    def start(self, followup: Followup) -> bool:
        """Give a planned follow-up the run that it lives in; repeatable."""
        if followup.session_id is None:
            self._followups.skip(followup, {"code": "erased"})
            return False
        given = {"followup_id": followup.id, "session_id": followup.session_id}
        try:
            run, created = self._engine.workflows.start(
                WORKFLOW,
                given,
                caller="followup",
                trigger="event",
                key=f"{followup.id}/{followup.round}",
            )
        except WorkflowNotFound:
            log.warning("followup.no_workflow_yet", followup_id=followup.id)
            return False
        self._followups.started(followup, run.id)
        return created

    def cancel(self, followup_id: str, by: str) -> Followup:
        """Do not send it. One that has gone out, or was skipped, stays what it is.

        Raises:
            FollowupNotFound: there is none of this id.
        """
        followup = self._followups.cancel(followup_id, by)
        if followup.state is FollowupState.CANCELLED:
            self._leave_books(followup)
            if followup.run_id is not None:
                try:
                    self._engine.workflows.cancel(followup.run_id)
                except (NotFound, Conflict):
                    log.debug("followup.run_has_ended", followup_id=followup.id)
        return followup

    # -- the steps of a run ------------------------------------------------------------

    def check(self, followup_id: str) -> Document:
        """Whether it goes out now: {verdict, code, until, kind, text}. "send" holds a place for
        it; "wait" says until when; anything else ends it."""
        try:
            followup = self._followups.get(followup_id)
        except FollowupNotFound:
            return _told("gone")
        if followup.state is not FollowupState.PLANNED:
            return _told("sent" if followup.sent_at is not None else followup.state.value)
        session = self._session(followup)
        if session is None:
            self._skip(followup, "session_gone")
            return _told("skipped", "session_gone")
        return self._settled(followup, session)[1]

    def _settled(self, followup: Followup, session: Session) -> tuple[Decision, Document]:
        """Decide, take a place in the books, and note what was decided."""
        rule = self._rule(followup)
        if rule is None:
            self._skip(followup, "rule_gone")
            return Decision("skip", "rule_gone"), _told("skipped", "rule_gone")
        now = self._engine.clock.now()
        quote = self._quotes.newest_of([session.id]).get(session.id)
        if rule.id != BY_HAND and reason_of(rule, session, quote) != followup.reason:
            code = "customer_wrote" if rule.on == "conversation_idle" else "quote_superseded"
            self._skip(followup, code)
            return Decision("skip", code), _told("skipped", code)
        look = self._looking.look(rule, session, quote, now, followup)
        decision = look.decision
        if decision.verdict == "send":
            decision = self._place(followup, look, now)
        if decision.verdict == "skip":
            self._skip(followup, decision.code)
            return decision, _told("skipped", decision.code)
        if decision.verdict == "wait":
            assert decision.until is not None
            self._followups.put_off(followup, decision.until, decision.why)
            return decision, _told("wait", decision.code) | {"until": decision.until.isoformat()}
        more = {"kind": followup.message, "text": followup.text}
        return decision, _told("send", decision.code) | more

    def _place(self, followup: Followup, look: Look, now: dt.datetime) -> Decision:
        """A place for it in the customer's book and in the day's, or when to try again."""
        rules, calendar = self._looking.rules, self._looking.calendar
        spread = spread_of(look.rule, rules)
        entry = Entry(followup.id, look.rule.id, now)
        customer = f"customer {followup.customer}"

        def customer_allows(others: Sequence[Entry]) -> bool:
            return free_at(look.rule, rules, others, now) <= now

        if not self._followups.enter(customer, entry, customer_allows, rules.memory):
            book = self._followups.book(customer)
            free = free_at(look.rule, rules, book, now)
            return Decision("wait", "customer_cap", slot(look.reason, free, spread, calendar))
        refused: list[str] = []

        def day_allows(others: Sequence[Entry]) -> bool:
            refused[:] = filter(None, [room(look.rule, rules, others, now)])
            return not refused

        if self._followups.enter(self._day(now), entry, day_allows, DAY_KEPT):
            return look.decision
        self._followups.leave(customer, followup.id)
        until = when_there_is_room(refused[0], look.reason, spread, now, calendar)
        return Decision("wait", refused[0], until)

    def send(self, followup_id: str, task_id: str, said: Said) -> Document:
        """Say it in its conversation, once; {verdict, code, until} as `check`, or "sent".

        Whatever has changed since it was checked is heeded: the session's compare-and-set finds
        out.

        Raises:
            StaleContext: the session keeps changing; run again.
        """
        engine = self._engine
        for _ in range(TRIES):
            try:
                followup = self._followups.get(followup_id)
            except FollowupNotFound:
                return _told("gone")
            session = self._session(followup)
            if session is None:
                self._skip(followup, "session_gone")
                return _told("skipped", "session_gone")
            source = source_of(followup)
            outgoing = engine.outbox.of_message(
                session,
                said.text,
                purpose="follow_up",
                language=said.language,
                kind=said.kind,
                values=said.values,
                about={"follow_up": {"id": followup.id, "rule": followup.rule, "kind": said.kind}},
            )
            said_at = engine.sessions.spoken_at(session, source)
            if said_at is None:
                if followup.state is not FollowupState.PLANNED:
                    return _told(followup.state.value)
                decision, told = self._settled(followup, session)
                if decision.verdict != "send":
                    return told
                try:
                    said_at = engine.sessions.speak(
                        session,
                        said.text,
                        source=source,
                        task_id=task_id,
                        facts={"follow_up": {"id": followup.id, "rule": followup.rule}},
                        outgoing=outgoing,
                        activity=False,
                    )
                except StaleContext:
                    continue
            engine.outbox.project(session.id)
            entries = [f"{source}.{n}" for n in range(len(outgoing))]
            self._followups.sent(self._followups.get(followup.id), said_at, entries)
            engine.replies.announce_news(ordering_key(session.id))
            log.info("followup.sent", followup_id=followup.id, rule=followup.rule)
            return _told("sent")
        raise StaleContext("The session keeps changing.")

    def measure(self, followup_id: str) -> Document:
        """Note what came of it until now: {over, effect}; `over` once nothing more counts."""
        now = self._engine.clock.now()
        try:
            followup = self._followups.get(followup_id)
        except FollowupNotFound:
            return {"over": True, "effect": []}
        if followup.sent_at is None:
            return {"over": True, "effect": []}
        session = self._session(followup)
        if session is None:
            self._followups.measured(followup, followup.counts, None, over=True)
            return {"over": True, "effect": []}
        ends = followup.sent_at + self._looking.rules.effect_within

        def counts_at(at: dt.datetime | None) -> bool:
            return at is not None and followup.sent_at is not None and followup.sent_at < at < ends

        answer = self._engine.sessions.answer_to(session, source_of(followup))
        told = None
        if answer is not None and counts_at(answer.at):
            told = {"task_id": answer.task_id, "at": answer.at}
        quote = self._quotes.newest_of([session.id]).get(session.id)
        settled = quote.state if quote is not None and counts_at(quote.state_at) else None
        known = [self._engine.contacts.known(address) for address in session.addresses]
        counts = {
            "answered": int(told is not None),
            "accepted": int(settled is QuoteState.ACCEPTED),
            "rejected": int(settled is QuoteState.REJECTED),
            "opted_out": int(any(counts_at(each.get("opted_out_at")) for each in known)),
            "not_delivered": int(self._not_delivered(followup)),
        }
        assert counts.keys() == set(EFFECTS)
        final = counts["accepted"] or counts["rejected"] or counts["opted_out"]
        over = bool(final) or now >= ends
        self._followups.measured(followup, counts, told, over=over)
        return {"over": over, "effect": [name for name, count in counts.items() if count]}

    # -- parts -------------------------------------------------------------------------

    def _session(self, followup: Followup) -> Session | None:
        if followup.session_id is None:
            return None
        try:
            return self._engine.sessions.get(followup.session_id)
        except NotFound:
            return None

    def _rule(self, followup: Followup) -> Rule | None:
        if followup.rule == BY_HAND:
            return by_hand(cast(MessageKind, followup.message), followup.priority)
        return self._looking.rules.rule(followup.rule)

    def _skip(self, followup: Followup, code: str) -> None:
        if self._followups.skip(followup, {"code": code}):
            log.info("followup.skipped", followup_id=followup.id, rule=followup.rule, code=code)
            self._leave_books(followup)

    def _leave_books(self, followup: Followup) -> None:
        """What does not go out takes no place."""
        if followup.customer is not None:
            self._followups.leave(f"customer {followup.customer}", followup.id)
        self._followups.leave(self._day(self._engine.clock.now()), followup.id)

    def _day(self, now: dt.datetime) -> str:
        return f"day {now.astimezone(self._looking.calendar.zone).date().isoformat()}"

    def _not_delivered(self, followup: Followup) -> bool:
        """Surely none of it arrived."""
        states = []
        for entry_id in followup.entries:
            try:
                states.append(self._engine.outbox.get(entry_id).state)
            except NotFound:
                return False  # it was sent long ago, or erased
        lost = (EntryState.FAILED, EntryState.DROPPED)
        return bool(states) and all(state in lost for state in states)


def source_of(followup: Followup) -> str:
    """Its message's source in the session."""
    return f"{followup.id}.followup"


def _told(verdict: str, code: str = "") -> Document:
    return {"verdict": verdict, "code": code or verdict, "until": None, "kind": None, "text": None}


# Codes of rules that have nothing to do with a conversation.
_ELSEWHERE: Final = frozenset({"no_quote", "has_quote", "not_accepted", "nothing_said", "went_on"})


def _rank(look: Look) -> int:
    """What tells most of a conversation comes first."""
    decision = look.decision
    if decision.verdict == "send":
        return 0
    if decision.verdict == "wait":
        return 1 if decision.code != "not_yet" else 3
    return 4 if decision.code in _ELSEWHERE else 2
