"""Numbers and findings as people read them, in Spanish and English.

Keeps secret where the texts are (`words.yaml`, beside this file) and how numbers, money, times
and dates are written in each language.
"""

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import yaml
from babel.dates import format_date, format_datetime, get_day_names
from babel.numbers import format_currency, format_decimal, format_percent

from agents.analytics.insights import Insight
from agents.catalogue import Language

TEXTS: Final = Path(__file__).with_name("words.yaml")
LOCALES: Final[dict[Language, str]] = {"es": "es_UY", "en": "en_US"}
_SHARES: Final = frozenset({"change", "share", "answered", "accepted"})
_SECONDS: Final = frozenset({"p95"})


class Words:
    """The texts and ways of writing of one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.locale = LOCALES[language]

    def say(self, name: str, /, **values: Any) -> str:
        """A text with its gaps filled.

        Raises:
            KeyError: there is no such text, or a gap has no value.
        """
        text: str = _texts()[name][self.language]
        return text.format(**values)

    def number(self, value: float) -> str:
        """A number, whole where it is large."""
        rounded = round(value) if abs(value) >= 10 or value == round(value) else round(value, 1)
        return str(format_decimal(rounded, locale=self.locale))

    def share(self, value: float) -> str:
        """A share of 1 as percent."""
        digits = "#,##0.0 %" if 0 < abs(value) < 0.1 else "#,##0 %"
        return str(format_percent(value, format=digits, locale=self.locale))

    def money(self, amount: Decimal, currency: str) -> str:
        """An amount without cents: reports are read at a glance."""
        whole = amount.quantize(Decimal(1))
        return str(
            format_currency(
                whole, currency, format="¤ #,##0", locale=self.locale, currency_digits=False
            )
        )

    def seconds(self, value: float) -> str:
        """A length of time in the unit in which it is a handy number."""
        for unit, length in (("h", 3600), ("min", 60)):
            if value >= 2 * length:
                return f"{self.number(value / length)} {unit}"
        if value < 1:
            return f"{self.number(value * 1000)} ms"
        return f"{self.number(value)} s"

    def measured(self, unit: str, value: float | None) -> str:
        """A measure's value by its unit."""
        if value is None:
            return "–"
        if unit == "ratio":
            return self.share(value)
        return self.seconds(value) if unit == "seconds" else self.number(value)

    def date(self, day: dt.date, *, short: bool = False) -> str:
        """A day, or with `short` only as much of it as an axis has room for."""
        pattern = "d MMM" if short else "d MMM y"
        return str(format_date(day, pattern, locale=self.locale)).replace(".", "")

    def moment(self, time: dt.datetime, zone: str) -> str:
        """A time on the business's clock."""
        local = time.astimezone(ZoneInfo(zone))
        return str(format_datetime(local, "d MMM y, HH:mm", locale=self.locale))

    def weekdays(self, width: Literal["wide", "abbreviated"] = "wide") -> list[str]:
        """The days of the week, Monday first."""
        names: Mapping[int, str] = get_day_names(width, locale=self.locale)
        return [names[day].rstrip(".") for day in range(7)]

    def insight(self, insight: Insight) -> str:
        """The sentence of a finding."""
        return self.say(
            f"insight_{insight.code}",
            **{name: self._filled(insight.code, name, v) for name, v in insight.values.items()},
        )

    def _filled(self, code: str, name: str, value: Any) -> str:
        if name == "weekday":
            return self.weekdays()[int(value)]
        if name == "hour":
            return f"{value}:00"
        if isinstance(value, str):
            return value
        if code.startswith("conversion_"):
            return self.number(value * 100)
        if name in _SECONDS or code.startswith("answers_"):
            return self.seconds(value)
        share = name in _SHARES or code.startswith(("product_", "channel_", "objection_"))
        return self.number(value) if name == "n" or not share else self.share(value)


@lru_cache(maxsize=1)
def _texts() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    return texts
