"""What the figures of a report say that is worth a sentence. Pure.

Each insight names the figures that it rests on, and is there only if they carry it: shares are
compared by a two-proportion z-test and counts as Poisson variables (with `SPREAD` times their
variance, since customers come in bursts), both at the level of `SURE`, divided by the number of
comparisons that are made at once (Bonferroni). Too few cases say nothing. How the sentences
read stands in `words.yaml`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Literal

Document = dict[str, Any]
Tone = Literal["good", "bad", "neutral"]

SURE: Final = 0.01  # how often chance alone would make one of these
FEW: Final = 30  # fewer cases are not compared
SPREAD: Final = 3.0
# Differences that are sure, and too small to matter to anybody, are not told.
WORTH_TELLING: Final = 0.1
SLOW_S: Final = 60.0
SLOWER: Final = 1.5


@dataclass(frozen=True)
class Insight:
    """A finding: its sentence's name, what it is filled with, and the figures it rests on, as
    paths into the report with their values."""

    code: str
    tone: Tone
    values: Document
    figures: Document

    def to_document(self) -> Document:
        """For the store and for JSON."""
        return dict(vars(self))


def insights(told: Document) -> list[Insight]:
    """What the figures (`figures.figures`) carry; the most important kinds first."""
    return [found for rule in RULES for found in rule(told)]


def named(insight: Insight, names: dict[str, str]) -> Insight:
    """A finding about a product, by the product's name."""
    product = insight.values.get("product")
    if product is None:
        return insight
    values = insight.values | {"product": names.get(product, product)}
    return Insight(insight.code, insight.tone, values, insight.figures)


def share_differs(a: int, of_a: int, b: int, of_b: int, comparisons: int = 1) -> bool:
    """Whether two shares differ by more than chance makes them."""
    if min(of_a, of_b) < FEW:
        return False
    pooled = (a + b) / (of_a + of_b)
    if pooled in (0, 1):
        return False
    z = (a / of_a - b / of_b) / math.sqrt(pooled * (1 - pooled) * (1 / of_a + 1 / of_b))
    return abs(z) > _bound(comparisons)


def count_differs(a: int, b: int, spread: float = SPREAD, comparisons: int = 1) -> bool:
    """Whether two counts over equal times differ by more than chance makes them."""
    if a + b < FEW:
        return False
    return abs(a - b) / math.sqrt(spread * (a + b)) > _bound(comparisons)


def _bound(comparisons: int) -> float:
    return NormalDist().inv_cdf(1 - SURE / 2 / max(1, comparisons))


def _value(told: Document, name: str) -> Any:
    return told["measures"][name]["value"]


def _before(told: Document, name: str) -> Any:
    return told["measures"][name]["before"]


def _both(told: Document, *names: str) -> Document:
    figures = {f"measures.{name}.value": _value(told, name) for name in names}
    return figures | {f"measures.{name}.before": _before(told, name) for name in names}


def _conversion(told: Document) -> Iterator[Insight]:
    won, sent = _value(told, "quotes_accepted"), _value(told, "quotes_offered")
    won_before, sent_before = _before(told, "quotes_accepted"), _before(told, "quotes_offered")
    if sent_before is None or not share_differs(won, sent, won_before, sent_before):
        return
    now, before = won / sent, won_before / sent_before
    if abs(now - before) < WORTH_TELLING * before:
        return
    up = now > before
    yield Insight(
        "conversion_up" if up else "conversion_down",
        "good" if up else "bad",
        {"now": now, "before": before},
        _both(told, "quotes_accepted", "quotes_offered"),
    )


def _messages(told: Document) -> Iterator[Insight]:
    now, before = _value(told, "messages"), _before(told, "messages")
    if before is None or before < FEW or abs(now - before) < WORTH_TELLING * before:
        return
    if count_differs(now, before):
        code = "messages_up" if now > before else "messages_down"
        change = now / before - 1
        yield Insight(
            code,
            "good" if now > before else "bad",
            {"now": now, "before": before, "change": abs(change)},
            _both(told, "messages"),
        )


def _answers(told: Document) -> Iterator[Insight]:
    n, before_n = _value(told, "messages"), _before(told, "messages")
    now, before = _value(told, "answer_p50"), _before(told, "answer_p50")
    if now and before and min(n, before_n) >= 100 and now > SLOWER * before and now > 1:
        figures = _both(told, "answer_p50", "messages")
        yield Insight("answers_slower", "bad", {"now": now, "before": before}, figures)
    slow = _value(told, "answer_p95")
    if slow and slow > SLOW_S and n >= 100:
        figures = {"measures.answer_p95.value": slow, "measures.messages.value": n}
        yield Insight("answers_slow", "bad", {"p95": slow}, figures)


def _odd_ones_out(dimension: str) -> Callable[[Document], Iterator[Insight]]:
    """The product, or the channel, whose quotes are accepted more or less than the others'."""

    def found(told: Document) -> Iterator[Insight]:
        offered = told["measures"]["quotes_offered"]["by"].get(dimension, {})
        accepted = told["measures"]["quotes_accepted"]["by"].get(dimension, {})
        whole, won = sum(offered.values()), sum(accepted.values())
        for part, sent in offered.items():
            mine = accepted.get(part, 0)
            if len(offered) < 2 or not share_differs(
                mine, sent, won - mine, whole - sent, len(offered)
            ):
                continue
            now, others = mine / sent, (won - mine) / (whole - sent)
            if abs(now - others) < WORTH_TELLING * others:
                continue
            better = now > others
            yield Insight(
                f"{dimension}_{'better' if better else 'worse'}",
                "good" if better else "bad",
                {dimension: part, "now": now, "others": others},
                {
                    f"measures.quotes_offered.by.{dimension}.{part}": sent,
                    f"measures.quotes_accepted.by.{dimension}.{part}": mine,
                    f"measures.quotes_offered.by.{dimension}": whole,
                    f"measures.quotes_accepted.by.{dimension}": won,
                },
            )

    return found


def _lost(told: Document) -> Iterator[Insight]:
    reasons = told["measures"]["lost"]["by"].get("reason", {})
    ranked = sorted(reasons, key=lambda each: -reasons[each])
    if not ranked or sum(reasons.values()) < FEW or ranked[0] == "other":
        return
    first = reasons[ranked[0]]
    second = reasons[ranked[1]] if len(ranked) > 1 else 0
    if count_differs(first, second, spread=1):
        whole = sum(reasons.values())
        figures = {f"measures.lost.by.reason.{each}": n for each, n in reasons.items()}
        values = {"lost": whole, "share": first / whole}
        yield Insight(f"lost_for_{ranked[0]}", "bad", values, figures)


def _objections(told: Document) -> Iterator[Insight]:
    met = told["measures"]["objections"]["by"].get("kind", {})
    overcome = told["measures"]["objections_overcome"]["by"].get("kind", {})
    funnel = told["funnel"]
    for kind, n in met.items():
        others = funnel["sessions_asked"] - n
        others_won = funnel["sessions_accepted"] - overcome.get(kind, 0)
        if not share_differs(overcome.get(kind, 0), n, others_won, others, len(met)):
            continue
        figures = {
            f"measures.objections.by.kind.{kind}": n,
            f"measures.objections_overcome.by.kind.{kind}": overcome.get(kind, 0),
            "funnel.sessions_asked": funnel["sessions_asked"],
            "funnel.sessions_accepted": funnel["sessions_accepted"],
        }
        now = overcome.get(kind, 0) / n
        if now < others_won / others:
            values = {"n": n, "now": now, "others": others_won / others}
            yield Insight(f"objection_{kind}", "bad", values, figures)


def _followups(told: Document) -> Iterator[Insight]:
    sent = told["measures"]["followups_sent"]["by"].get("rule", {})
    answered = told["measures"]["followups_answered"]["by"].get("rule", {})
    accepted = told["measures"]["followups_accepted"]["by"].get("rule", {})
    for rule, n in sent.items():
        if n < FEW:
            continue
        values = {
            "rule": rule,
            "n": n,
            "answered": answered.get(rule, 0) / n,
            "accepted": accepted.get(rule, 0) / n,
        }
        figures = {
            f"measures.{name}.by.rule.{rule}": each.get(rule, 0)
            for name, each in (
                ("followups_sent", sent),
                ("followups_answered", answered),
                ("followups_accepted", accepted),
            )
        }
        yield Insight("followups", "neutral", values, figures)


def _rhythm(told: Document) -> Iterator[Insight]:
    """The day of the week on which most is asked, where it stands out."""
    if len(told["days"]) < 14 or _value(told, "messages") < 300:
        return
    means = [sum(row) for row in told["rhythm"]]
    top = max(range(7), key=lambda day: means[day])
    weeks = len(told["days"]) / 7
    rest = (sum(means) - means[top]) / 6
    if means[top] < (1 + WORTH_TELLING) * rest:
        return
    if not count_differs(round(means[top] * weeks), round(rest * weeks), comparisons=7):
        return
    peak = max(range(24), key=lambda hour: told["rhythm"][top][hour])
    values = {"weekday": top, "hour": peak, "mean": means[top], "others": rest}
    figures = {
        f"rhythm.{top}": round(means[top], 2),
        f"rhythm.{top}.{peak}": told["rhythm"][top][peak],
    }
    yield Insight("busiest_day", "neutral", values, figures)


def _unanswered(told: Document) -> Iterator[Insight]:
    """What failed did fail: no test is needed."""
    if n := _value(told, "messages_failed"):
        figures = {"measures.messages_failed.value": n}
        yield Insight("messages_failed", "bad", {"n": n}, figures)
    if n := _value(told, "dead_letters"):
        agents = told["measures"]["dead_letters"]["by"].get("agent", {})
        figures = {f"measures.dead_letters.by.agent.{each}": k for each, k in agents.items()}
        yield Insight("dead_letters", "bad", {"n": n, "agents": ", ".join(agents)}, figures)


RULES: Final[tuple[Callable[[Document], Iterator[Insight]], ...]] = (
    _unanswered,
    _conversion,
    _messages,
    _answers,
    _odd_ones_out("product"),
    _odd_ones_out("channel"),
    _lost,
    _objections,
    _followups,
    _rhythm,
)
