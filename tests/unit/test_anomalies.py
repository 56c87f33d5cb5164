"""Alarms: none to speak of in a year of normal weeks, and every incident found in two periods.

The year is simulated with a rhythm of days and weeks, growth, seasons, and bursts (counts are
negative binomial, of twice the variance of a Poisson variable and more).
"""

import datetime as dt
import math
import random
from collections.abc import Callable, Iterator

import pytest

from agents.analytics.anomalies import (
    WATCHES,
    WEEKS,
    Baseline,
    Judged,
    Point,
    Watch,
    alarming,
    over,
    window,
)

START = dt.datetime(2025, 1, 6, tzinfo=dt.UTC)  # a Monday
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
BY_NAME = {watch.name: watch for watch in WATCHES}
Change = Callable[[str, dt.datetime, float], float]


def slot_of(at: dt.datetime) -> tuple[int, int]:
    return at.weekday(), at.hour


def demand(at: dt.datetime) -> float:
    """Messages that are to be expected in an hour."""
    hour = at.hour + 0.5
    shape = math.exp(-(((hour - 11) / 3) ** 2)) + 0.9 * math.exp(-(((hour - 17) / 2.5) ** 2)) + 0.02
    weekday = (1.1, 1.0, 1.0, 0.95, 0.9, 0.45, 0.2)[at.weekday()]
    days = (at - START).days
    season = 1 + 0.15 * math.sin(2 * math.pi * days / 365)
    return 180 * shape * weekday * season * (1 + 0.4 * days / 365)


class Business:
    """What the watched numbers come to, hour by hour and day by day, with incidents put in."""

    def __init__(self, seed: int, days: int, change: Change = lambda name, at, value: value):
        rng = self.rng = random.Random(seed)
        self.points: dict[str, list[Point]] = {watch.name: [] for watch in WATCHES}
        for n in range(days * 24):
            at = START + n * HOUR
            messages = self.count(change("messages", at, demand(at)))
            mid = 2.5 * math.exp(rng.gauss(0, 0.12)) * (1 + messages / 2000)
            median_s = change("answer_p50", at, mid)
            noise = 0.75 / math.sqrt(max(1, messages))
            self.add("messages", at, messages)
            self.add("quotes", at, self.count(change("quotes", at, messages / 6)))
            self.add("answer_p50", at, median_s * math.exp(rng.gauss(0, noise)), messages)
            wait_s = change("wait_p95", at, 0.4 * math.exp(rng.gauss(0, 0.3)))
            self.add("wait_p95", at, wait_s, messages * 2)
            self.add("handovers", at, self.count(change("handovers", at, messages / 60)))
            self.add("errors", at, self.count(change("errors", at, messages / 200)))
            self.add("slots", at, change("slots", at, 10), 1)
            for rare, rate in (("messages_failed", 3e-5), ("dead_letters", 1e-4)):
                self.add(rare, at, change(rare, at, sum(rng.random() < rate for _ in range(1))))
            self.add("imports_failed", at, change("imports_failed", at, 0))
        for n in range(days):
            at = START + n * DAY
            decided = self.count(demand(at + 12 * HOUR) * 1.2) + 5
            share = min(1.0, max(0.0, change("decided_conversion", at, rng.gauss(0.33, 0.015))))
            accepted = sum(rng.random() < share for _ in range(decided))
            self.add("decided_conversion", at, accepted / decided, decided)

    def count(self, mean: float) -> int:
        """Negative binomial: a Poisson variable whose mean varies."""
        if mean <= 0:
            return 0
        shape = 60.0
        return self.poisson(self.rng.gammavariate(shape, mean / shape))

    def poisson(self, mean: float) -> int:
        if mean > 50:
            return max(0, round(self.rng.gauss(mean, math.sqrt(mean))))
        limit, n, product = math.exp(-mean), 0, self.rng.random()
        while product > limit:
            n, product = n + 1, product * self.rng.random()
        return n

    def add(self, name: str, at: dt.datetime, value: float, cases: int | None = None) -> None:
        self.points[name].append(Point(at, value, round(value) if cases is None else cases))


def judgements(watch: Watch, points: list[Point], since: dt.datetime) -> Iterator[Judged | None]:
    """Each point against the baseline of the day on which it is."""
    baseline, built = None, None
    for point in points:
        if point.at < since:
            continue
        day = point.at.replace(hour=0)
        if built != day:
            baseline, built = Baseline(watch, window(points, day), slot_of), day
        assert baseline is not None
        yield baseline.judge(point)


def alarms(watch: Watch, points: list[Point], since: dt.datetime) -> list[Point]:
    """The points with which alarms begin; one that goes on is not told again."""
    begun, standing, before = [], False, None
    for now in judgements(watch, points, since):
        if standing:
            standing = not over(before, now)
        elif alarming(before, now):
            standing = True
            assert now is not None
            begun.append(now.point)
        before = now
    return begun


@pytest.fixture(scope="module")
def quiet_year() -> Business:
    return Business(seed=11, days=365)


def test_a_year_of_normal_weeks_has_less_than_one_alarm_a_week(quiet_year: Business) -> None:
    weeks = (365 - 7 * WEEKS) / 7
    found = {
        watch.name: alarms(watch, quiet_year.points[watch.name], START + WEEKS * 7 * DAY)
        for watch in WATCHES
    }
    assert sum(map(len, found.values())) <= weeks, found
    # By far: an alarm that comes every week is not read in the second month.
    assert sum(map(len, found.values())) <= weeks / 4, found


BEGINS = START + 10 * 7 * DAY + DAY + 10 * HOUR  # a Tuesday, at ten


def during(name: str, hours: int, changed: Callable[[float], float]) -> Change:
    def change(of: str, at: dt.datetime, value: float) -> float:
        since = BEGINS if BY_NAME[of].period == "hour" else BEGINS.replace(hour=0)
        there = of == name and since <= at < since + hours * HOUR
        return changed(value) if there else value

    return change


INCIDENTS = {
    "an agent is down": ("slots", 4, lambda value: 0.0),
    "half of the workers are down": ("slots", 4, lambda value: value / 2),
    "the answer takes twice as long": ("answer_p50", 4, lambda value: 2 * value),
    "conversion is halved": ("decided_conversion", 96, lambda value: value / 2),
    "an import failed": ("imports_failed", 1, lambda value: 1.0),
    "no messages come": ("messages", 4, lambda value: 0.0),
    "three times the messages come": ("messages", 4, lambda value: 3 * value),
    "no quotes are made": ("quotes", 6, lambda value: 0.0),
    "tasks wait": ("wait_p95", 4, lambda value: 30.0),
    "handlers fail": ("errors", 4, lambda value: 20 * value + 20),
    "messages are not answered": ("messages_failed", 2, lambda value: 3.0),
    "everybody is handed to a person": ("handovers", 4, lambda value: 10 * value),
}


@pytest.mark.parametrize("incident", INCIDENTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_incident_is_found_within_two_periods_told_once_and_over_when_it_is(
    incident: str, seed: int
) -> None:
    name, hours, changed = INCIDENTS[incident]
    watch = BY_NAME[name]
    length = HOUR if watch.period == "hour" else DAY
    begins = BEGINS if watch.period == "hour" else BEGINS.replace(hour=0)
    business = Business(seed, days=10 * 7 + 10, change=during(name, hours, changed))
    found = alarms(watch, business.points[name], begins - 3 * length)
    assert found, incident
    assert begins <= found[0].at <= begins + length
    assert len([each for each in found if each.at < begins + hours * HOUR]) == 1
    points = [each for each in business.points[name] if each.at < begins + hours * HOUR + 4 * DAY]
    last = list(judgements(watch, points, points[-2].at))
    assert over(*last)


def test_nothing_is_said_before_there_is_enough_history() -> None:
    crazy = Business(3, days=27, change=lambda name, at, value: value * (1 + 9 * (at.day % 2)))
    for watch in WATCHES:
        assert not any(judgements(watch, crazy.points[watch.name], START)), watch.name


def test_the_range_that_is_expected_is_in_the_measures_own_unit(quiet_year: Business) -> None:
    since = START + 40 * 7 * DAY + 11 * HOUR
    for watch in WATCHES:
        judged = next(iter(judgements(watch, quiet_year.points[watch.name], since)))
        assert judged is not None
        assert judged.low <= judged.expected <= judged.high, watch.name
    messages = next(iter(judgements(BY_NAME["messages"], quiet_year.points["messages"], since)))
    assert messages is not None
    assert messages.expected == pytest.approx(demand(since), rel=0.2)


def test_growth_moves_what_is_expected() -> None:
    watch = BY_NAME["messages"]
    points = []
    for n in range(9 * 7 * 24):
        at = START + n * HOUR
        week = (at - START).days // 7
        points.append(Point(at, round(100 * 1.03**week), 1))
    judged = Baseline(watch, window(points, points[-1].at), slot_of).judge(points[-1])
    assert judged is not None
    assert judged.expected == pytest.approx(100 * 1.03**8, rel=0.06)
