"""Numbers that add up: what a stretch of time comes to, in a form that can be merged.

A `Tally` holds counts, sums of money and histograms, each under a key; the tally of a day is
those of its hours added up, whatever the order. Keys are made by `key`: the name of what is
counted and, where it is a part of it, of which: "messages", "messages|channel=web".

Medians and percentiles come from histograms whose buckets grow by 2 %, so that a value is told
with an error of at most 1 % (the mapping of DDSketch: Masson, Rim, Lee, "DDSketch: A fast and
fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019); to merge two is to
add up their buckets.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from bson.decimal128 import Decimal128

Document = dict[str, Any]

GROWTH: Final = 1.02
RELATIVE_ERROR: Final = (GROWTH - 1) / (GROWTH + 1)
LONGEST_NAME: Final = 80
_LOG_GROWTH: Final = math.log(GROWTH)


def key(name: str, **part: str) -> str:
    """What a count stands under; parts in the order of their names."""
    told = (f"{each}={_fit(part[each])}" for each in sorted(part))
    return "|".join((name, *told))


def _fit(value: str) -> str:
    return value.replace("|", "/").replace("=", "-")[:LONGEST_NAME]


class Histogram:
    """Positive numbers, none of them kept. Quantiles are right within `RELATIVE_ERROR`."""

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: Counter[int] = Counter(buckets or {})

    def add(self, value: float, times: int = 1) -> None:
        """Count a value; what is below 1 counts as 1."""
        self.buckets[0 if value <= 1 else math.ceil(math.log(value) / _LOG_GROWTH)] += times

    def merge(self, other: "Histogram") -> None:
        """Count all that the other has counted."""
        self.buckets.update(other.buckets)

    @property
    def count(self) -> int:
        """How many values."""
        return self.buckets.total()

    def quantile(self, share: float) -> float | None:
        """The value that a share of all are not above (nearest rank); None where there is none."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return 2 * GROWTH**bucket / (GROWTH + 1) if bucket else 1.0
        raise AssertionError("a rank is among the values")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.buckets == other.buckets

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Tally:
    """Counts, money and times, each by its key. Times are in milliseconds."""

    counts: Counter[str] = field(default_factory=Counter)
    money: dict[str, Decimal] = field(default_factory=dict)
    times: dict[str, Histogram] = field(default_factory=dict)

    def count(self, name: str, *parts: Mapping[str, str], by: int = 1) -> None:
        """Count it as a whole, and in each of the parts."""
        for part in ({}, *parts):
            self.counts[key(name, **part)] += by

    def add_money(self, name: str, amount: Decimal, *parts: Mapping[str, str]) -> None:
        """Add an amount in each of the parts, of which one is the currency's."""
        for part in parts:
            where = key(name, **part)
            self.money[where] = self.money.get(where, Decimal(0)) + amount

    def time(self, name: str, value: float, *parts: Mapping[str, str]) -> None:
        """Count a time as a whole, and in each of the parts."""
        for part in ({}, *parts):
            self.times.setdefault(key(name, **part), Histogram()).add(value)

    def merge(self, other: "Tally") -> "Tally":
        """Add another one to this; returns this."""
        self.counts.update(other.counts)
        for where, amount in other.money.items():
            self.money[where] = self.money.get(where, Decimal(0)) + amount
        for where, histogram in other.times.items():
            self.times.setdefault(where, Histogram()).merge(histogram)
        return self

    def parts_of(self, name: str, dimension: str) -> list[str]:
        """The values of a dimension for which something is counted under a name, sorted."""
        found = set()
        for each in (*self.counts, *self.money, *self.times):
            named, *parts = each.split("|")
            if named == name:
                found |= {
                    part.partition("=")[2] for part in parts if part.startswith(f"{dimension}=")
                }
        return sorted(found)

    def to_document(self) -> Document:
        """For the store: keys may hold what a field's name may not."""
        return {
            "counts": [[where, n] for where, n in sorted(self.counts.items()) if n],
            "money": [[where, Decimal128(amount)] for where, amount in sorted(self.money.items())],
            "times": [
                [where, [[bucket, n] for bucket, n in sorted(each.buckets.items())]]
                for where, each in sorted(self.times.items())
            ],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Tally":
        """The inverse of `to_document`."""
        return cls(
            Counter(dict(document["counts"])),
            {where: amount.to_decimal() for where, amount in document["money"]},
            {where: Histogram(dict(buckets)) for where, buckets in document["times"]},
        )


def merged(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies."""
    total = Tally()
    for each in tallies:
        total.merge(each)
    return total
