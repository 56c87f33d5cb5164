"""Alerts: numbers that are not what they usually are, each told when it begins and when it is over.

Keeps secret how an hour is judged once whatever dies: the alert of a number has an id made of
its name and the period with which it began, at most one of a number is open (a unique index),
and it is told by tasks whose idempotency keys are made of that id. What was judged last is
written down only after all of that, so whoever dies in between has it done again.

Collection `alerts`, one document per alert:

    _id            rises with the period with which it began
    watch, part    what is watched (`anomalies.WATCHES`), and of which agent, or null
    state          "open" | "resolved"
    open_key       watch and part while it is open: unique
    period         "hour" | "day"
    began_at       the beginning of the period with which it began
    value, expected, low, high
                   of that period: what it was, what was to be expected, between what and what
    unit           "count" | "seconds" | "share" | "level" | "rare"
    look_at        the name of the text that says where to look
    text           {es, en}
    seen_at        the last period in which it was still so
    changed_at     the end of the period with which it began, then of that with which it was over
    resolved_at    the end of the period with which it was over
    expire_at      set when it is over

Collection `report_progress`: {_id "alerts", through: the beginning of the last judged hour}.

Written by this module only; the front door reads it as the analytics agent declares it.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from agents.analytics.anomalies import (
    WATCHES,
    WEEKS,
    Baseline,
    Judged,
    Point,
    Watch,
    alarming,
    over,
)
from agents.analytics.rollup import HOUR, ONE_DAY, RollUp, hour_of
from agents.analytics.tally import Tally
from agents.analytics.wording import LOCALES, Words
from orchestrator.declarations import Resource
from orchestrator.logs import log
from orchestrator.settings import Settings
from orchestrator.tasks import digest, ensure_index, id_at, store_errors

Document = dict[str, Any]
Tell = Callable[[Document, str], None]
PointName = tuple[str, str]
Points = dict[PointName, tuple[float, int]]

OPEN, RESOLVED = "open", "resolved"
# A desk that was away for longer has other things to do than to be told of it hour by hour.
LONGEST_CATCH_UP: Final = dt.timedelta(hours=48)
# Under what the parts of a watch that has some stand.
_OF: Final = {"slots": "slot_ms", "wait_p95": "wait"}
RESOURCE: Final = Resource(
    "alerts",
    "alerts",
    (
        *("watch", "part", "state", "period", "began_at", "value", "expected", "low", "high"),
        *("unit", "look_at", "text", "seen_at", "resolved_at"),
    ),
    ("state", "watch"),
)


class Alerts:
    """Every method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, database: Database[Document], rollup: RollUp, settings: Settings) -> None:
        self._alerts = database["alerts"]
        self._progress = database["report_progress"]
        self._rollup = rollup
        self._calendar = settings.working_time
        # A few thousand numbers, so that not every hour eight weeks are read.
        self._hours: dict[dt.datetime, Points] = {}
        self._slots: dict[dt.datetime, tuple[int, int]] = {}
        self._kept = dt.timedelta(days=settings.analytics_retention_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here, or a list at the front door, relies on."""
        ensure_index(self._alerts, "open", "open_key", unique=True, where={"open_key": {"$gt": ""}})
        for name in RESOURCE.filters:
            ensure_index(self._alerts, f"list_{name}", f"{name} _id")
        ensure_index(self._alerts, "changed", "changed_at")
        ensure_index(self._alerts, "expiry", "expire_at", expireAfterSeconds=0)

    def open_ones(self) -> list[Document]:
        """The alerts that are not over, the newest first."""
        with store_errors():
            found = list(self._alerts.find({"state": OPEN}))
        return sorted(found, key=lambda alert: str(alert["_id"]), reverse=True)

    def get(self, alert_id: str) -> Document | None:
        """An alert as it is kept."""
        with store_errors():
            return self._alerts.find_one({"_id": alert_id})

    def look(self, now: dt.datetime, tell: Tell) -> int:
        """Judge the hours, and days of the business, that have ended since the last time.

        `tell(alert, event)` is called for each alert that is "opened" or "resolved", and must
        do nothing when it is called again for the same. Returns how many hours were judged.
        """
        with store_errors():
            known = self._progress.find_one({"_id": "alerts"})
            last = hour_of(now) - HOUR
            first = last if known is None else known["through"] + HOUR
            first = max(first, hour_of(now - LONGEST_CATCH_UP))
            if first > last:
                return 0
            judged = 0
            hour = first
            self._read_hours(first - dt.timedelta(weeks=WEEKS) - HOUR, last + HOUR)
            while hour <= last:
                self._judge("hour", hour, HOUR, self._hours, tell)
                ends = hour + HOUR
                if self._rollup.day_of(ends) != self._rollup.day_of(hour):
                    self._judge_day(self._rollup.day_of(hour), tell)
                hour, judged = ends, judged + 1
                self._progress.update_one(
                    {"_id": "alerts"}, {"$set": {"through": hour - HOUR}}, upsert=True
                )
        return judged

    def _read_hours(self, since: dt.datetime, until: dt.datetime) -> None:
        """Know the points of the hours; those that may have changed are read again."""
        read_from = since
        if self._hours and min(self._hours) <= since + ONE_DAY:
            read_from = max(since, max(self._hours) - LONGEST_CATCH_UP)
        read = self._rollup.hourly(read_from, until)
        kept = {at: points for at, points in self._hours.items() if since <= at < read_from}
        self._hours = kept | {at: points_of(tally, "hour") for at, tally in read.items()}

    def _judge_day(self, day: dt.date, tell: Tell) -> None:
        first = day - dt.timedelta(weeks=WEEKS) - 2 * ONE_DAY
        days = {
            self._rollup.bounds(each)[0]: points_of(tally, "day")
            for each, tally in self._rollup.daily(first, day + ONE_DAY).items()
        }
        self._judge("day", self._rollup.bounds(day)[0], ONE_DAY, days, tell)

    def _judge(
        self,
        period: str,
        at: dt.datetime,
        length: dt.timedelta,
        known: Mapping[dt.datetime, Points],
        tell: Tell,
    ) -> None:
        if not known:
            return
        # Before the first thing that was ever counted there is no zero, but nothing.
        earliest = min(known)
        times = self._periods(period, max(at - dt.timedelta(weeks=WEEKS), earliest), at)
        nothing = points_of(Tally(), period)
        parts = {name for points in known.values() for name in points} | set(nothing)
        standing = {each["open_key"]: each for each in self._alerts.find({"state": OPEN})}
        for watch in WATCHES:
            for name, part in sorted(each for each in parts if each[0] == watch.name):

                def point(each: dt.datetime, which: PointName = (name, part)) -> Point:
                    of_period = known.get(each, nothing)
                    value, cases = of_period.get(which, (None, 0))
                    return Point(each, value, cases)

                baseline = Baseline(watch, map(point, times), self._slot_of)
                before = baseline.judge(point(times[-1])) if times else None
                now = baseline.judge(point(at))
                open_key = f"{watch.name} {part}".strip()
                if open_key in standing:
                    self._follow(standing[open_key], at + length, before, now)
                elif alarming(before, now):
                    assert now is not None
                    self._open(watch, part or None, open_key, now)
        # Told from what is kept, so that a second run tells what the first may not have.
        for alert in self._alerts.find({"changed_at": at + length}):
            if alert["period"] == period:
                tell(alert, "resolved" if alert["state"] == RESOLVED else "opened")

    def _periods(self, period: str, since: dt.datetime, until: dt.datetime) -> list[dt.datetime]:
        """The beginnings of the periods from `since` to before `until`."""
        if period == "hour":
            n = (until - hour_of(since)) // HOUR
            return [hour_of(since) + k * HOUR for k in range(n)]
        day, last = self._rollup.day_of(since), self._rollup.day_of(until)
        days = [day + k * ONE_DAY for k in range((last - day).days)]
        return [self._rollup.bounds(each)[0] for each in days]

    def _slot_of(self, at: dt.datetime) -> tuple[int, int]:
        slot = self._slots.get(at)
        if slot is None:
            local = at.astimezone(self._rollup.zone)
            weekday = 6 if self._calendar.is_holiday(local.date()) else local.weekday()
            slot = self._slots[at] = weekday, local.hour
        return slot

    def _follow(
        self, alert: Document, ends: dt.datetime, before: Judged | None, now: Judged | None
    ) -> None:
        if over(before, now):
            self._resolve(alert, ends)
        elif now is not None and now.z:
            seen = {"$set": {"seen_at": now.point.at}}
            self._alerts.update_one({"_id": alert["_id"]}, seen)

    def _open(self, watch: Watch, part: str | None, open_key: str, now: Judged) -> None:
        at = now.point.at
        length = HOUR if watch.period == "hour" else ONE_DAY
        alert: Document = {
            "_id": f"{id_at(at)}{digest(open_key)[:20]}",
            "watch": watch.name,
            "part": part,
            "state": OPEN,
            "open_key": open_key,
            "period": watch.period,
            "began_at": at,
            "changed_at": at + length,
            "value": now.point.value,
            "expected": now.expected,
            "low": now.low,
            "high": now.high,
            "unit": watch.scale,
            "look_at": watch.look_at,
            "seen_at": at,
            "resolved_at": None,
        }
        alert["text"] = {language: worded(alert, Words(language)) for language in LOCALES}
        try:
            self._alerts.insert_one(alert)
        except DuplicateKeyError:
            return  # another look was first
        log.warning(
            "analytics.alert_opened",
            watch=watch.name,
            part=alert["part"],
            value=now.point.value,
            low=round(now.low, 3),
            high=round(now.high, 3),
        )

    def _resolve(self, alert: Document, ends: dt.datetime) -> None:
        self._alerts.update_one(
            {"_id": alert["_id"]},
            {
                "$set": {
                    "state": RESOLVED,
                    "resolved_at": ends,
                    "changed_at": ends,
                    "expire_at": ends + self._kept,
                },
                "$unset": {"open_key": ""},
            },
        )
        log.info("analytics.alert_resolved", watch=alert["watch"], part=alert["part"])


def worded(alert: Mapping[str, Any], words: Words) -> str:
    """An alert as a sentence: what it is, what was to be expected, where to look."""

    def shown(value: float) -> str:
        if alert["unit"] == "seconds":
            return words.seconds(value)
        return words.share(value) if alert["unit"] == "share" else words.number(value)

    name = words.say(f"watch_{alert['watch']}", part=alert["part"] or "")
    return words.say(
        "alert",
        name=name,
        value=shown(alert["value"]),
        low=shown(alert["low"]),
        high=shown(alert["high"]),
        look_at=words.say(f"look_{alert['look_at']}"),
    )


def points_of(tally: Tally, period: str) -> Points:
    """What is watched of a period: {(watch, part or ""): (value, cases)}."""
    found: Points = {}
    for watch in WATCHES:
        if watch.period != period:
            continue
        parts = [""] if watch.dimension is None else tally.parts_of(_OF[watch.name], "agent")
        for part in parts:
            point = watch.value(tally, {} if watch.dimension is None else {"agent": part})
            if point is not None:
                found[(watch.name, part)] = point
    return found
