"""The figures of a report: what the tallies of its days come to. Pure.

They are what is given out as JSON, and all that the page, the PDF, the CSV and the insights
show; nothing is worked out there.
"""

import csv
import datetime as dt
import io
from collections.abc import Mapping
from typing import Any, Final

from agents.analytics.measures import FUNNEL, MEASURES, Measure, amounts, by_state, funnel
from agents.analytics.tally import Tally, key, merged

Document = dict[str, Any]

# What is told day by day.
DAILY: Final = (
    "messages",
    "sessions",
    "answer_p50",
    "answer_p95",
    "quotes_offered",
    "quotes_accepted",
    "conversion",
    "lost",
    "followups_sent",
    "handovers",
    "dead_letters",
    "utilisation",
)
# Under these stands every part that there is.
COUNTED: Final = (
    *("messages", "sessions", "quotes", "lost", "objections", "followups_sent"),
    *("tasks", "slot_ms"),
)
# A report names no more products than a reader takes in; the others are in its totals.
MAX_PARTS: Final = 25
DIGITS: Final = {"count": 0, "turns": 0, "ratio": 4, "seconds": 3}


def figures(
    days: Mapping[dt.date, Tally],
    before: Tally | None,
    *,
    since: dt.datetime,
    until: dt.datetime,
    zone: str,
) -> Document:
    """Everything that a report tells. `before` is the tally of the time of the same length before
    it, None where that was not counted from its beginning. Days are the business's. Money is
    strings of Decimals, ratios are shares of 1, times are seconds; null means that there is
    nothing that it could be made of."""
    whole = merged(days.values())
    return {
        "since": since.isoformat(),
        "until": until.isoformat(),
        "zone": zone,
        "measures": {name: _measured(each, whole, before) for name, each in MEASURES.items()},
        "funnel": funnel(whole, {}),
        "funnel_by_channel": {
            channel: funnel(whole, {"channel": channel})
            for channel in whole.parts_of(FUNNEL[0], "channel")
        },
        "quotes_by_state": by_state(whole, "quotes"),
        "tasks_by_state": by_state(whole, "tasks"),
        "money": _money(whole),
        "money_before": {} if before is None else _money(before),
        "days": [_day(day, tally) for day, tally in sorted(days.items())],
        "rhythm": _rhythm(days),
    }


def _measured(measure: Measure, whole: Tally, before: Tally | None) -> Document:
    return {
        "unit": measure.unit,
        "value": _rounded(measure, measure.value(whole, {})),
        "before": None if before is None else _rounded(measure, measure.value(before, {})),
        "by": {
            dimension: split
            for dimension in measure.parts
            if (split := _split(measure, whole, dimension))
        },
    }


def _split(measure: Measure, tally: Tally, dimension: str) -> Document:
    """The measure of each part, the most frequent ones first."""
    named = {part for name in COUNTED for part in tally.parts_of(name, dimension)}
    found = {}
    for part in named:
        value = measure.value(tally, {dimension: part})
        if value:
            found[part] = _rounded(measure, value)
    largest = sorted(found, key=lambda part: (-found[part], part))[:MAX_PARTS]
    return {part: found[part] for part in largest}


def _rounded(measure: Measure, value: float | None) -> Any:
    if value is None:
        return None
    digits = DIGITS[measure.unit]
    return round(value, digits) if digits else round(value)


def _money(tally: Tally) -> Document:
    """{currency: {quoted, won, products: {product: {quoted, won}}}}."""
    told: Document = {}
    for name in ("quoted", "won"):
        for currency, amount in amounts(tally, name, {}).items():
            told.setdefault(currency, {"quoted": "0", "won": "0", "products": {}})
            told[currency][name] = str(amount)
        for product in tally.parts_of(name, "product"):
            parts = amounts(tally, name, {"product": product})
            for currency, amount in parts.items():
                products = told[currency]["products"]
                products.setdefault(product, {"quoted": "0", "won": "0"})[name] = str(amount)
    return told


def _day(day: dt.date, tally: Tally) -> Document:
    told: Document = {"date": day.isoformat()}
    for name in DAILY:
        told[name] = _rounded(MEASURES[name], MEASURES[name].value(tally, {}))
    won = amounts(tally, "won", {})
    return told | {"won": {currency: str(amount) for currency, amount in won.items()}}


def _rhythm(days: Mapping[dt.date, Tally]) -> list[list[float]]:
    """Messages per hour: seven rows, Monday first, of 24 means over the days that were seen."""
    rows: list[list[float]] = []
    for weekday in range(7):
        same = [tally for day, tally in days.items() if day.weekday() == weekday]
        hours = [
            sum(t.counts[key("messages", hour=f"{hour:02}")] for t in same) for hour in range(24)
        ]
        rows.append([round(n / len(same), 2) if same else 0.0 for n in hours])
    return rows


def as_csv(told: Document) -> str:
    """The same numbers as lines: date, measure, dimension, part, unit, value."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("date", "measure", "dimension", "part", "unit", "value"))
    for name, measured in told["measures"].items():
        lines.writerow(("", name, "", "", measured["unit"], _cell(measured["value"])))
        for dimension, parts in measured["by"].items():
            for part, value in parts.items():
                lines.writerow(("", name, dimension, _safe(part), measured["unit"], _cell(value)))
    for step, n in told["funnel"].items():
        lines.writerow(("", step, "funnel", "", "count", n))
    for name in ("quotes", "tasks"):
        for state, n in told[f"{name}_by_state"].items():
            lines.writerow(("", name, "state", state, "count", n))
    for currency, money in told["money"].items():
        for name in ("quoted", "won"):
            lines.writerow(("", name, "", "", currency, money[name]))
            for product, amount in money["products"].items():
                lines.writerow(("", name, "product", _safe(product), currency, amount[name]))
    for day in told["days"]:
        for name in DAILY:
            unit = MEASURES[name].unit
            lines.writerow((day["date"], name, "", "", unit, _cell(day[name])))
        for currency, amount in day["won"].items():
            lines.writerow((day["date"], "won", "", "", currency, amount))
    return text.getvalue()


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _safe(text: str) -> str:
    """A spreadsheet takes for a formula what begins like one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
