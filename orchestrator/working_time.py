"""When the business is open: its hours, in its zone, on days that are no holidays.

Keeps secret how hours are written down and where holidays come from (the `holidays` library,
by country). Pure: times in, times out, aware; a zone's changes between summer and winter time
are its own matter.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from zoneinfo import ZoneInfo

import holidays

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PART: Final = re.compile(
    r"(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+"
    r"(?P<opens>\d{2}:\d{2})-(?P<closes>\d{2}:\d{2})"
)
# A business that is closed for longer than this has no next opening.
_LOOK_AHEAD_DAYS: Final = 370

Hours = Mapping[int, tuple[tuple[dt.time, dt.time], ...]]
# The end of a day, as a closing time: "24:00" of that day is 00:00 of the next.
_MIDNIGHT: Final = dt.time.min


def parse_hours(text: str) -> Hours:
    """Hours by weekday (0 is Monday) from "mon-fri 09:00-18:00, sat 09:00-13:00".

    "mon-sun 00:00-24:00" never closes.

    Raises:
        ValueError: it is not written like that, or closes before it opens.
    """
    hours: dict[int, list[tuple[dt.time, dt.time]]] = {}
    for part in text.lower().split(","):
        found = _PART.fullmatch(part.strip())
        if found is None or not {found["first"], found["last"] or "mon"} <= set(DAYS):
            raise ValueError('must be like "mon-fri 09:00-18:00, sat 09:00-13:00"')
        first = DAYS.index(found["first"])
        last = DAYS.index(found["last"] or found["first"])
        opens = dt.time.fromisoformat(found["opens"])
        until_midnight = found["closes"] == "24:00"
        closes = _MIDNIGHT if until_midnight else dt.time.fromisoformat(found["closes"])
        if opens >= closes and not until_midnight:
            raise ValueError(f"{found['opens']} is not before {found['closes']}")
        for day in range(first, last + 1 if last >= first else last + 8):
            hours.setdefault(day % 7, []).append((opens, closes))
    return {day: tuple(sorted(spans)) for day, spans in hours.items()}


@dataclass(frozen=True)
class WorkingTime:
    """Opening hours. `country` and `subdivision` are ISO 3166 codes, or None for no holidays."""

    zone: ZoneInfo
    hours: Hours
    country: str | None = None
    subdivision: str | None = None

    @cached_property
    def _holidays(self) -> "holidays.HolidayBase | None":
        if self.country is None:
            return None
        return holidays.country_holidays(self.country, subdiv=self.subdivision)

    def is_holiday(self, day: dt.date) -> bool:
        """Whether the business is closed for a holiday."""
        return self._holidays is not None and day in self._holidays

    def spans(self, day: dt.date) -> list[tuple[dt.datetime, dt.datetime]]:
        """When it opens and closes on a day; empty when it stays closed."""
        if self.is_holiday(day):
            return []
        next_day = day + dt.timedelta(days=1)
        return [
            (
                dt.datetime.combine(day, opens, self.zone).astimezone(dt.UTC),
                dt.datetime.combine(
                    next_day if closes == _MIDNIGHT else day, closes, self.zone
                ).astimezone(dt.UTC),
            )
            for opens, closes in self.hours.get(day.weekday(), ())
        ]

    def is_open(self, moment: dt.datetime) -> bool:
        """Whether it is open."""
        return self.opens(moment) == moment

    def opens(self, moment: dt.datetime) -> dt.datetime:
        """The moment, if the business is open then, else when it opens next."""
        day = moment.astimezone(self.zone).date()
        for _ in range(_LOOK_AHEAD_DAYS):
            for opens, closes in self.spans(day):
                if moment < closes:
                    return max(moment, opens)
            day += dt.timedelta(days=1)
        return moment
