"""Numbers with units: what lengths, areas and thicknesses they can mean.

Keeps secret how units are left out and carried over ("6,5 x 4 m"), and which readings of a
number are possible for what it measures. Lengths are in metres, thicknesses in mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_PLAUSIBLE_SIDE_M: Final = 1000
_LEAST_SIDE_M: Final = Decimal("0.05")
_METRES_PER: Final = {
    "m": Decimal(1), "cm": Decimal("0.01"), "mm": Decimal("0.001"),
    "ft": Decimal("0.3048"), "in": Decimal("0.0254"),
}  # fmt: skip


@dataclass
class Measure:
    """A number with its unit and what it is said to be a measure of."""

    start: int
    end: int
    values: tuple[Decimal, ...]
    unit: str | None = None
    side: str | None = None  # "length", "width", "thickness", "area"
    linear: bool = False
    of: bool = False  # "de 100"

    @property
    def value(self) -> Decimal | None:
        return self.values[0] if len(self.values) == 1 else None


def count_of(value: Decimal | None) -> int | None:
    """A number of pieces or sides: whole, from 1 to 10,000."""
    if value is None or value != value.to_integral_value() or not 1 <= value <= 10_000:
        return None
    return int(value)


def in_mm(value: Decimal, unit: str | None) -> Decimal:
    factor = {"cm": Decimal(10), "m": Decimal(1000), "in": Decimal("25.4")}.get(unit or "mm", 1)
    return tidy(value * factor)


def tidy(value: Decimal) -> Decimal:
    whole = value.to_integral_value()
    return whole if whole == value else value.normalize()


def in_metres(measure: Measure, default: str) -> tuple[Decimal, ...]:
    """The lengths that a measure can mean; more than one where its digits can be read as
    thousands or decimals and both would be possible."""
    factor = _METRES_PER.get(measure.unit or default, Decimal(1))
    lengths = [tidy(value * factor) for value in measure.values]
    if len(lengths) == 2 and lengths[0] > _PLAUSIBLE_SIDE_M:
        lengths = lengths[1:]
    if len(lengths) == 2 and lengths[1] < _LEAST_SIDE_M:
        lengths = lengths[:1]
    return tuple(lengths)


def sides_m(chain: Sequence[Measure]) -> list[tuple[Decimal, Decimal]]:
    """The sizes that two measures can mean. A unit said once is meant for both."""
    first, second = chain
    units = [each.unit for each in chain if each.unit is not None]
    default = units[0] if units else "m"
    firsts, seconds = _readings(first, default), _readings(second, default)
    options = [(a, b) for a in firsts for b in seconds]
    a, b = first.value, second.value
    if not units and a is not None and b is not None and min(a, b) > _PLAUSIBLE_SIDE_M:
        # 2500x1200 is no roof of 2.5 km: mm, or cm?
        return [(tidy(a / 1000), tidy(b / 1000)), (tidy(a / 100), tidy(b / 100))]
    large = a is not None and b is not None and 100 <= min(a, b) <= max(a, b) <= _PLAUSIBLE_SIDE_M
    if large and not units and a is not None and b is not None:
        options.append((tidy(a / 100), tidy(b / 100)))  # 200x100, in cm?
    return list(dict.fromkeys(options))


def _readings(measure: Measure, default: str) -> tuple[Decimal, ...]:
    """In the unit that was said of the other side, or in metres: "80 cm x 2", "10 x 50 cm"."""
    lengths = in_metres(measure, default)
    value = measure.value
    if measure.unit is not None or default not in ("cm", "mm") or value is None or value >= 20:
        return lengths
    if value * _METRES_PER[default] < _LEAST_SIDE_M or value != value.to_integral_value():
        return (tidy(value),)
    return (*lengths, tidy(value))


def areas_of(measure: Measure) -> tuple[Decimal, ...]:
    """The areas that a measure can mean: nobody writes decimals that end in zeros."""
    if len(measure.values) == 2 and measure.values[0] % 10 == 0:
        return (measure.values[0],)
    return tuple(dict.fromkeys(measure.values))
