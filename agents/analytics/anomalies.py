"""When a number is not what it usually is at that hour of the week. Pure.

The baseline of a measure is the median of the same hour of the week over the last `WEEKS` weeks,
moved by the median by which the last two departed from it, so that growth is no anomaly. How
far values usually stray is the median absolute deviation from these medians, over the hours of
the day around it, times 1.4826 (it is then the standard deviation of normal values). A value is
an outlier where its modified z-score is above 3.5: B. Iglewicz and D. C. Hoaglin, "How to Detect
and Handle Outliers", ASQC, 1993. One hour in some thousand is that by chance, so an alarm takes
two periods in a row on the same side, or one that is far out.

Counts are compared on the scale of F. J. Anscombe (Biometrika 35, 1948), shares on that of the
arcsine, times on that of the logarithm: there their spread does not depend on their size. What
hardly ever happens (a failed import) has no rhythm: there an alarm is a count that a Poisson
variable of the rate so far would reach less than once in `RARE` periods.

Until `LEAST_WEEKS` weeks are known, and where a period has too few cases, nothing is said.
"""

import datetime as dt
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from agents.analytics.measures import HOUR_MS, MEASURES
from agents.analytics.tally import Tally, key

WEEKS: Final = 8
LEAST_WEEKS: Final = 4
OUTLIER: Final = 3.5
FAR_OUT: Final = 6.5
# Back to what is usual: well within, so that an alarm does not flicker.
USUAL: Final = 2.5
RARE: Final = 2000
MAD_TO_SIGMA: Final = 1.4826
# What stands for a period without any, when a rate is worked out: Jeffreys' prior.
HALF: Final = 0.5

Scale = Literal["count", "seconds", "share", "level", "rare"]
# By how the values of this long departed from the medians, what is expected is moved: longer than
# twice an incident, or the incident would be taken for the new usual.
DRIFT: Final = {"hour": dt.timedelta(days=14), "day": dt.timedelta(days=28)}
Side = Literal["high", "low", "both"]
Period = Literal["hour", "day"]


@dataclass(frozen=True)
class Watch:
    """A number that is watched.

    `value` makes (value, cases) of a tally and a part of it, None where there is none. Fewer
    than `least` cases say nothing. On the side `high`, what is at most `harmless` is none.
    `look_at` names the text that says where to look.
    """

    name: str
    scale: Scale
    side: Side
    look_at: str
    value: Callable[[Tally, Mapping[str, str]], tuple[float, int] | None]
    period: Period = "hour"
    dimension: str | None = None
    least: int = 0
    harmless: float = 0.0


@dataclass(frozen=True)
class Point:
    """A number of one period; None where the period has none."""

    at: dt.datetime
    value: float | None
    cases: int = 0


@dataclass(frozen=True)
class Judged:
    """A point against what was expected of it; `z` is 0 where it is harmless."""

    point: Point
    z: float
    expected: float
    low: float
    high: float


def count_of(name: str, **part: str) -> Callable[[Tally, Mapping[str, str]], tuple[float, int]]:
    """A count; no case is a case of its own."""

    def value(tally: Tally, more: Mapping[str, str]) -> tuple[float, int]:
        n = tally.counts.get(key(name, **part, **more), 0)
        return n, n

    return value


def _seconds_of(measure: str, times: str) -> Callable[..., tuple[float, int] | None]:
    def value(tally: Tally, more: Mapping[str, str]) -> tuple[float, int] | None:
        seconds = MEASURES[measure].value(tally, more)
        histogram = tally.times.get(key(times, **more))
        return None if seconds is None or histogram is None else (seconds, histogram.count)

    return value


def _slots(tally: Tally, more: Mapping[str, str]) -> tuple[float, int] | None:
    slot_ms = tally.counts.get(key("slot_ms", **more))
    return None if slot_ms is None else (slot_ms / HOUR_MS, 1)


def _decided(tally: Tally, more: Mapping[str, str]) -> tuple[float, int] | None:
    decided = tally.counts.get(key("decided", **more), 0)
    accepted = tally.counts.get(key("decided", state="accepted"), 0)
    return (accepted / decided, decided) if decided else None


WATCHES: Final = (
    Watch("messages", "count", "both", "messages", count_of("messages")),
    Watch("quotes", "count", "low", "quotes", count_of("quotes")),
    Watch(
        "answer_p50",
        "seconds",
        "high",
        "answers",
        _seconds_of("answer_p50", "answer"),
        least=10,
        harmless=1.0,
    ),
    Watch(
        "wait_p95",
        "seconds",
        "high",
        "waits",
        _seconds_of("wait_p95", "wait"),
        dimension="agent",
        least=10,
        harmless=1.0,
    ),
    Watch("handovers", "count", "high", "handovers", count_of("handovers")),
    Watch("errors", "count", "high", "errors", count_of("errors")),
    Watch("slots", "level", "low", "workers", _slots, dimension="agent"),
    Watch("messages_failed", "rare", "high", "failures", count_of("messages_failed")),
    Watch("dead_letters", "rare", "high", "failures", count_of("dead_letters")),
    Watch(
        "imports_failed",
        "rare",
        "high",
        "imports",
        count_of("tasks", agent="data_sync_agent", state="failed"),
    ),
    Watch("decided_conversion", "share", "both", "conversion", _decided, period="day", least=20),
)


class Baseline:
    """What is usual of a watched number, from its points of the last weeks.

    `slot_of` tells the slot of the week of a period: (weekday, hour), with holidays as Sundays.
    """

    def __init__(
        self,
        watch: Watch,
        history: Iterable[Point],
        slot_of: Callable[[dt.datetime], tuple[int, int]],
    ) -> None:
        self._watch = watch
        self._slot_of = slot_of
        known = [
            (slot_of(each.at), self._scaled(each.value, each.cases), each)
            for each in history
            if each.value is not None and each.cases >= watch.least
        ]
        self._events = sum(each.value or 0 for _, _, each in known)
        self._periods = len(known)
        slots: dict[tuple[int, int], list[float]] = {}
        for slot, scaled, _ in known:
            slots.setdefault(slot, []).append(scaled)
        self._medians = {slot: median(values) for slot, values in slots.items()}
        self._enough = {slot for slot, values in slots.items() if len(values) >= LEAST_WEEKS}
        self._by_hour: dict[int, list[float]] = {}
        residuals = []
        for slot, scaled, each in known:
            if slot in self._enough:
                residual = scaled - self._medians[slot]
                residuals.append((each.at, residual))
                self._by_hour.setdefault(slot[1], []).append(residual)
        self._spread = _mad([residual for _, residual in residuals])
        last = max((at for at, _ in residuals), default=None)
        self._drift = 0.0
        if last is not None:
            since = last - DRIFT[watch.period]
            self._drift = median([residual for at, residual in residuals if at > since])
        self._spreads: dict[int, float] = {}

    def judge(self, point: Point) -> Judged | None:
        """A point against the baseline; None where nothing can be said of it."""
        if point.value is None or point.cases < self._watch.least:
            return None
        if self._watch.scale == "rare":
            return self._judge_rare(point)
        slot = self._slot_of(point.at)
        if slot not in self._enough:
            return None
        middle = self._medians[slot] + self._drift
        sigma = self._sigma(slot[1], point.cases, middle)
        z = (self._scaled(point.value, point.cases) - middle) / sigma
        told = [self._unscaled(middle + far * sigma, point.cases) for far in (0, -OUTLIER, OUTLIER)]
        if self._watch.side == "high" and (z < 0 or point.value <= self._watch.harmless):
            z = 0.0
        if self._watch.side == "low" and z > 0:
            z = 0.0
        return Judged(point, z, *told)

    def _judge_rare(self, point: Point) -> Judged | None:
        if self._periods < LEAST_WEEKS * 7 * (24 if self._watch.period == "hour" else 1):
            return None
        assert point.value is not None
        rate = (self._events + HALF) / (self._periods + 1)
        chance = _poisson_tail(round(point.value), rate)
        expected = self._events / self._periods
        high = next(n for n in range(1000) if _poisson_tail(n + 1, rate) * RARE < 1)
        return Judged(point, FAR_OUT if chance * RARE < 1 else 0.0, expected, 0, high)

    def _sigma(self, hour: int, cases: int, middle: float) -> float:
        if hour not in self._spreads:
            around = [
                residual
                for near in (hour - 1, hour, hour + 1)
                for residual in self._by_hour.get(near % 24, ())
            ]
            self._spreads[hour] = max(_mad(around), self._spread / 2)
        match self._watch.scale:
            case "count":
                floor = 1.0  # of a Poisson variable
            case "share":
                floor = 1 / (2 * math.sqrt(cases))
            case "level":
                floor = max(abs(middle) / 8, 1e-9)
            case _:
                # A median of few times strays by chance.
                floor = 0.05 + 0.8 / math.sqrt(cases)
        return max(self._spreads[hour], floor)

    def _scaled(self, value: float, cases: int) -> float:
        match self._watch.scale:
            case "count":
                return 2 * math.sqrt(value + 0.375)
            case "seconds":
                return math.log(max(value, 1e-3))
            case "share":
                return math.asin(math.sqrt((value * cases + 0.375) / (cases + 0.75)))
            case _:
                return value

    def _unscaled(self, scaled: float, cases: int) -> float:
        match self._watch.scale:
            case "count":
                return max(0.0, (max(scaled, 0) / 2) ** 2 - 0.375)
            case "seconds":
                return math.exp(scaled)
            case "share":
                share = math.sin(min(max(scaled, 0), math.pi / 2)) ** 2
                return min(1.0, max(0.0, (share * (cases + 0.75) - 0.375) / cases))
            case _:
                return max(0.0, scaled)


def alarming(before: Judged | None, now: Judged | None) -> bool:
    """Whether an alarm begins with the second of two periods in a row."""
    if now is None:
        return False
    if abs(now.z) >= FAR_OUT:
        return True
    return (
        before is not None
        and min(before.z * now.z, 0) == 0
        and (min(abs(before.z), abs(now.z)) >= OUTLIER)
    )


def over(before: Judged | None, now: Judged | None) -> bool:
    """Whether an alarm ends with the second of two periods in a row."""
    judged = (before, now)
    return all(each is not None and abs(each.z) < USUAL for each in judged)


def window(points: Sequence[Point], until: dt.datetime) -> Sequence[Point]:
    """The points of the weeks before a moment, of points in the order of time."""
    since = until - dt.timedelta(weeks=WEEKS)
    times = [each.at for each in points]
    return points[bisect_left(times, since) : bisect_left(times, until)]


def _mad(values: Sequence[float]) -> float:
    """The median absolute deviation from zero, of residuals of medians, as a sigma."""
    return MAD_TO_SIGMA * median([abs(each) for each in values]) if values else 0.0


def _poisson_tail(n: int, rate: float) -> float:
    """How likely a Poisson variable is n or more."""
    if n <= 0:
        return 1.0
    term, below = math.exp(-rate), 0.0
    for k in range(n):
        below += term
        term *= rate / (k + 1)
    return max(0.0, 1 - below)
