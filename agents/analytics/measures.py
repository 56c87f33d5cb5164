"""The measures, each in one place: what it is called, its unit, its formula, how it is made.

A measure is a function of a `Tally` and a part of it ({"channel": "web"}, {} for the whole);
it is None where the tally does not carry it. docs/analytics.md has the same table, and a test
compares the two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from agents.analytics.tally import Tally, key

Part = Mapping[str, str]
Unit = Literal["count", "ratio", "seconds", "turns"]
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True)
class Measure:
    """A number of a stretch of time. `parts` are the dimensions that it can be split by;
    `better` says which direction is good news, None where neither is."""

    name: str
    unit: Unit
    formula: str
    value: Callable[[Tally, Part], float | None]
    parts: tuple[str, ...] = ()
    better: Literal["more", "less"] | None = None


def _count(name: str) -> Callable[[Tally, Part], float | None]:
    return lambda tally, part: tally.counts.get(key(name, **part), 0)


def _ratio(above: str, below: str) -> Callable[[Tally, Part], float | None]:
    def value(tally: Tally, part: Part) -> float | None:
        whole = tally.counts.get(key(below, **part), 0)
        return tally.counts.get(key(above, **part), 0) / whole if whole else None

    return value


def _seconds(name: str, share: float) -> Callable[[Tally, Part], float | None]:
    def value(tally: Tally, part: Part) -> float | None:
        times = tally.times.get(key(name, **part))
        found = None if times is None else times.quantile(share)
        return None if found is None else found / 1000

    return value


def _turns(tally: Tally, part: Part) -> float | None:
    turns = tally.times.get(key("turns_to_quote", **part))
    found = None if turns is None else turns.quantile(0.5)
    return None if found is None else round(found)


def _utilisation(tally: Tally, part: Part) -> float | None:
    slot_ms = tally.counts.get(key("slot_ms", **part), 0)
    return tally.counts.get(key("busy_ms", **part), 0) / slot_ms if slot_ms else None


def _conversion_of_decided(tally: Tally, part: Part) -> float | None:
    decided = tally.counts.get(key("decided", **part), 0)
    return tally.counts.get(key("decided", state="accepted"), 0) / decided if decided else None


_BY_CHANNEL: Final = ("channel",)
_BY_AGENT: Final = ("agent",)
_OF_QUOTES: Final = ("channel", "product")

MEASURES: Final = {
    measure.name: measure
    for measure in (
        Measure(
            "messages",
            "count",
            "customers' messages that were accepted",
            _count("messages"),
            _BY_CHANNEL,
            "more",
        ),
        Measure(
            "sessions",
            "count",
            "conversations that began, in which something was said",
            _count("sessions"),
            _BY_CHANNEL,
            "more",
        ),
        Measure(
            "first_answer_p50",
            "seconds",
            "median, over conversations' first messages, from accepted to answered",
            _seconds("first_answer", 0.5),
            _BY_CHANNEL,
            "less",
        ),
        Measure(
            "answer_p50",
            "seconds",
            "median, over messages that the desk answered, from accepted to answered",
            _seconds("answer", 0.5),
            _BY_CHANNEL,
            "less",
        ),
        Measure(
            "answer_p95",
            "seconds",
            "95th percentile of the same",
            _seconds("answer", 0.95),
            _BY_CHANNEL,
            "less",
        ),
        Measure(
            "messages_failed",
            "count",
            "messages whose task failed: nobody answered",
            _count("messages_failed"),
            _BY_CHANNEL,
            "less",
        ),
        Measure(
            "turns_to_quote",
            "turns",
            "median, over conversations with a quote, of the turns up to the first one's",
            _turns,
            _BY_CHANNEL,
            "less",
        ),
        Measure(
            "asked_share",
            "ratio",
            "conversations that asked for a price / conversations",
            _ratio("sessions_asked", "sessions"),
            _BY_CHANNEL,
        ),
        Measure(
            "handovers",
            "count",
            "answers with which the desk handed a conversation to a person",
            _count("handovers"),
            _BY_CHANNEL,
        ),
        Measure(
            "quotes",
            "count",
            "quotes made, versions that were corrected later among them",
            _count("quotes"),
            _OF_QUOTES,
            "more",
        ),
        Measure(
            "quotes_offered",
            "count",
            "quotes made that reached the customer, the last version of each",
            _count("quotes_offered"),
            _OF_QUOTES,
            "more",
        ),
        Measure(
            "quotes_accepted",
            "count",
            "of these, those that are accepted by now",
            _count("quotes_accepted"),
            _OF_QUOTES,
            "more",
        ),
        Measure(
            "conversion",
            "ratio",
            "quotes_accepted / quotes_offered",
            _ratio("quotes_accepted", "quotes_offered"),
            _OF_QUOTES,
            "more",
        ),
        Measure(
            "decided_conversion",
            "ratio",
            "of the quotes accepted, rejected or run out in the time, whenever made: the accepted",
            _conversion_of_decided,
            (),
            "more",
        ),
        Measure(
            "lost",
            "count",
            "quotes rejected or run out in the time, whenever made; by reason",
            _count("lost"),
            ("reason", "channel"),
            "less",
        ),
        Measure(
            "objections",
            "count",
            "conversations in which the customer objected; by kind",
            _count("objections"),
            ("kind", "channel"),
        ),
        Measure(
            "objections_overcome",
            "count",
            "of these, those in which a quote is accepted by now",
            _count("objections_overcome"),
            ("kind", "channel"),
            "more",
        ),
        Measure(
            "followups_sent", "count", "follow-ups that left", _count("followups_sent"), ("rule",)
        ),
        Measure(
            "followups_answered",
            "count",
            "of these, those that the customer answered",
            _count("followups_answered"),
            ("rule",),
            "more",
        ),
        Measure(
            "followups_accepted",
            "count",
            "of these, those after which the customer accepted",
            _count("followups_accepted"),
            ("rule",),
            "more",
        ),
        Measure(
            "followups_opted_out",
            "count",
            "of these, those after which the customer wanted no more of them",
            _count("followups_opted_out"),
            ("rule",),
            "less",
        ),
        Measure("tasks", "count", "tasks accepted", _count("tasks"), _BY_AGENT),
        Measure(
            "wait_p95",
            "seconds",
            "95th percentile, over tasks, from ready to claimed",
            _seconds("wait", 0.95),
            _BY_AGENT,
            "less",
        ),
        Measure(
            "run_p95",
            "seconds",
            "95th percentile, over tasks that completed, from claimed to done",
            _seconds("run", 0.95),
            _BY_AGENT,
            "less",
        ),
        Measure(
            "errors",
            "count",
            "attempts that a handler's error ended: most are tried again",
            _count("errors"),
            _BY_AGENT,
            "less",
        ),
        Measure(
            "crashes",
            "count",
            "attempts that ended with their worker",
            _count("crashes"),
            _BY_AGENT,
            "less",
        ),
        Measure(
            "dead_letters",
            "count",
            "tasks given up that nobody else waits for",
            _count("dead_letters"),
            _BY_AGENT,
            "less",
        ),
        Measure(
            "utilisation",
            "ratio",
            "time that tasks ran / slots of live workers, looked at every minute",
            _utilisation,
            _BY_AGENT,
        ),
    )
}

FUNNEL: Final = ("sessions", "sessions_asked", "sessions_offered", "sessions_accepted")


def funnel(tally: Tally, part: Part) -> dict[str, int]:
    """Of the conversations that began: asked for a price, got a quote, accepted one, by now."""
    return {name: tally.counts.get(key(name, **part), 0) for name in FUNNEL}


def amounts(tally: Tally, name: Literal["quoted", "won"], part: Part) -> dict[str, Decimal]:
    """Money of the quotes offered ("quoted"), or of those accepted ("won"), by currency."""
    return {
        currency: tally.money[where]
        for currency in tally.parts_of(name, "currency")
        if (where := key(name, currency=currency, **part)) in tally.money
    }


def by_state(tally: Tally, name: Literal["quotes", "tasks"]) -> dict[str, int]:
    """How many are in which state."""
    return {state: tally.counts[key(name, state=state)] for state in tally.parts_of(name, "state")}
