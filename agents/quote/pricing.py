"""What things cost, by the catalogue's factors; pure, exact, rounded once.

    unit price per m² = base × thickness × colour × finishes × anchors × freight
    area              = length × width × quantity
    total             = unit price × area, rounded half up to cents once, at the end
    tax               = the part of the total that is tax: total × rate / (1 + rate)

Keeps secret the arithmetic: every product of the catalogue's numbers (19 digits at most)
and the sides (12) is worked out with more digits than it can have, so that the one
rounding is of the true value.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from enum import StrEnum
from typing import Any, Final

from agents.catalogue import Catalogue, Colour, Finish, Option, Product


@dataclass(frozen=True)
class PriceRequest:
    """One thing to be priced. Products, colours and finishes by id or any of their names;
    what is None is the catalogue's default. Either both sides or the area, not all three;
    `quantity` is how many pieces of that size there are.

    `finishes` names one finish for each side that has one: ("gotero", "gotero").
    """

    product: str
    thickness_mm: int
    length_m: Decimal | None = None
    width_m: Decimal | None = None
    area_m2: Decimal | None = None
    colour: str | None = None
    finishes: tuple[str, ...] = ()
    anchors: bool | None = None
    freight: bool | None = None
    quantity: int = 1


@dataclass(frozen=True)
class Factor:
    """One factor of a price, for show: `("colour", "gris", 1.05)`."""

    name: str
    choice: str
    value: Decimal


@dataclass(frozen=True)
class PricedItem:
    """A thing with its price, in the catalogue's ids. Prices include tax.

    `unit_price_per_m2` is not rounded: base price × all `factors`. `total` is rounded to
    cents, `tax` is the part of it that is tax. The sides are those of one piece, None where
    the area was given directly; `area_m2` is that of all pieces. Finishes are in the order of
    the catalogue.
    """

    product: str
    thickness_mm: int
    length_m: Decimal | None
    width_m: Decimal | None
    quantity: int
    area_m2: Decimal
    colour: str
    finishes: tuple[str, ...]
    anchors: bool
    freight: bool
    base_price_per_m2: Decimal
    factors: tuple[Factor, ...]
    unit_price_per_m2: Decimal
    total: Decimal
    tax: Decimal

    def to_document(self) -> dict[str, Any]:
        """For JSON or BSON: field names as here, Decimals as strings, tuples as lists."""
        return {
            "product": self.product,
            "thickness_mm": self.thickness_mm,
            "length_m": None if self.length_m is None else str(self.length_m),
            "width_m": None if self.width_m is None else str(self.width_m),
            "quantity": self.quantity,
            "area_m2": str(self.area_m2),
            "colour": self.colour,
            "finishes": list(self.finishes),
            "anchors": self.anchors,
            "freight": self.freight,
            "base_price_per_m2": str(self.base_price_per_m2),
            "factors": [
                {"name": each.name, "choice": each.choice, "value": str(each.value)}
                for each in self.factors
            ],
            "unit_price_per_m2": str(self.unit_price_per_m2),
            "total": str(self.total),
            "tax": str(self.tax),
        }


@dataclass(frozen=True)
class PricedQuote:
    """Items with their sum. `total` is the sum of the items' totals, as they are shown.
    `tax` is the part of that total: taxes of items, each rounded, may add up to a cent more
    or less."""

    items: tuple[PricedItem, ...]
    total: Decimal
    tax: Decimal
    tax_rate: Decimal
    currency: str
    validity_days: int
    catalogue_version: int

    def to_document(self) -> dict[str, Any]:
        """For JSON or BSON: field names as here, Decimals as strings."""
        return {
            "items": [item.to_document() for item in self.items],
            "total": str(self.total),
            "tax": str(self.tax),
            "tax_rate": str(self.tax_rate),
            "currency": self.currency,
            "validity_days": self.validity_days,
            "catalogue_version": self.catalogue_version,
        }


class ProblemCode(StrEnum):
    """Why something has no price, and what `Problem.allowed` then holds."""

    MISSING = "missing"  # nothing
    UNKNOWN = "unknown"  # the ids that there are
    NOT_MADE = "not_made"  # the thicknesses in mm that the product is made in
    OUT_OF_RANGE = "out_of_range"  # the most: the number must be more than 0, at most this
    TOO_PRECISE = "too_precise"  # how many decimals there may be
    TOO_MANY = "too_many"  # how many there may be
    TOO_SMALL = "too_small"  # the least total: so little costs less than that
    CONFLICT = "conflict"  # the fields that cannot be given together with this one


@dataclass(frozen=True)
class Problem:
    """One reason why a request has no price. `field` is a field of PriceRequest; in a
    quote with its item in front, counted from 0: `items.1.thickness_mm`. It holds nothing
    that the customer wrote."""

    field: str
    code: ProblemCode
    allowed: tuple[str | int | Decimal, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """For JSON or BSON; Decimals as strings."""
        allowed = [str(each) if isinstance(each, Decimal) else each for each in self.allowed]
        return {"field": self.field, "code": self.code.value, "allowed": allowed}


class PricingRefused(ValueError):
    """The catalogue has no price for a request; raised with everything that is in the way."""

    code = "pricing_refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(", ".join(f"{each.field}: {each.code}" for each in self.problems))


MAX_DECIMALS: Final = 6
MAX_QUANTITY: Final = 10_000
CENT: Final = Decimal("0.01")
_EXACT: Final = Context(prec=300, rounding=ROUND_HALF_UP)


def price(catalogue: Catalogue, request: PriceRequest) -> PricedItem:
    """The price of one thing.

    Raises:
        PricingRefused: with every field that is wrong, and what is possible instead.
    """
    with localcontext(_EXACT):
        return _price(catalogue, request)


def price_quote(catalogue: Catalogue, items: Sequence[PriceRequest]) -> PricedQuote:
    """The prices of several things and their sum.

    Raises:
        PricingRefused: with what is wrong in all the items; `items` itself when there
            are none.
    """
    if not items:
        raise PricingRefused([Problem("items", ProblemCode.MISSING)])
    priced: list[PricedItem] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            priced.append(price(catalogue, item))
        except PricingRefused as refused:
            problems += (
                replace(each, field=f"items.{index}.{each.field}") for each in refused.problems
            )
    if problems:
        raise PricingRefused(problems)
    with localcontext(_EXACT):
        total = sum((item.total for item in priced), Decimal("0.00"))
        return PricedQuote(
            items=tuple(priced),
            total=total,
            tax=tax_within(total, catalogue.tax_rate),
            tax_rate=catalogue.tax_rate,
            currency=catalogue.currency,
            validity_days=catalogue.quote_validity_days,
            catalogue_version=catalogue.version,
        )


def tax_within(total: Decimal, tax_rate: Decimal) -> Decimal:
    """The part of a total that is tax, rounded half up to cents; what is left is the net."""
    with localcontext(_EXACT):
        return _to_cents(total * tax_rate / (1 + tax_rate))


def _price(catalogue: Catalogue, request: PriceRequest) -> PricedItem:
    problems: list[Problem] = []
    product = _product(catalogue, request, problems)
    area_m2 = _area_m2(catalogue, request, problems)
    colour = _colour(catalogue, request, problems)
    finishes = _finishes(catalogue, request, problems)
    if product is None or area_m2 is None or colour is None or problems:
        raise PricingRefused(problems)

    anchors = _included(catalogue.anchors, request.anchors)
    freight = _included(catalogue.freight, request.freight)
    thickness = catalogue.thickness_factor(request.thickness_mm)
    finishes_factor = 1 + sum((each.added_per_side for each in finishes), Decimal(0))
    factors = (
        Factor("thickness", f"{request.thickness_mm} mm", thickness),
        Factor("colour", colour.id, colour.factor),
        Factor("finishes", _sides(finishes), finishes_factor),
        Factor("anchors", _choice(anchors), catalogue.anchors.factor(anchors)),
        Factor("freight", _choice(freight), catalogue.freight.factor(freight)),
    )
    unit_price = catalogue.price_per_m2(
        product,
        request.thickness_mm,
        colour=colour,
        finishes=finishes,
        anchors=anchors,
        freight=freight,
    )
    total = _to_cents(unit_price * area_m2)
    if not total:
        raise PricingRefused([Problem("area_m2", ProblemCode.TOO_SMALL, (CENT,))])
    return PricedItem(
        product=product.id,
        thickness_mm=request.thickness_mm,
        length_m=None if request.length_m is None else _tidy(request.length_m),
        width_m=None if request.width_m is None else _tidy(request.width_m),
        quantity=request.quantity,
        area_m2=_tidy(area_m2),
        colour=colour.id,
        finishes=tuple(each.id for each in finishes),
        anchors=anchors,
        freight=freight,
        base_price_per_m2=_tidy(product.base_price_per_m2),
        factors=factors,
        unit_price_per_m2=_tidy(unit_price),
        total=total,
        tax=tax_within(total, catalogue.tax_rate),
    )


def _product(
    catalogue: Catalogue, request: PriceRequest, problems: list[Problem]
) -> Product | None:
    product = catalogue.product(request.product)
    if product is None:
        there_are = tuple(each.id for each in catalogue.products)
        problems.append(Problem("product", ProblemCode.UNKNOWN, there_are))
    elif request.thickness_mm not in product.thicknesses_mm:
        problems.append(Problem("thickness_mm", ProblemCode.NOT_MADE, product.thicknesses_mm))
    return product


def _area_m2(
    catalogue: Catalogue, request: PriceRequest, problems: list[Problem]
) -> Decimal | None:
    """The area of all pieces; None where something in the way of it was noted."""
    size_m2 = _size_m2(catalogue, request, problems)
    if not 1 <= request.quantity <= MAX_QUANTITY:
        problems.append(Problem("quantity", ProblemCode.OUT_OF_RANGE, (MAX_QUANTITY,)))
        return None
    return None if size_m2 is None else size_m2 * request.quantity


def _size_m2(
    catalogue: Catalogue, request: PriceRequest, problems: list[Problem]
) -> Decimal | None:
    sides = {"length_m": request.length_m, "width_m": request.width_m}
    if request.area_m2 is not None:
        given = tuple(name for name, side_m in sides.items() if side_m is not None)
        if given:
            problems.append(Problem("area_m2", ProblemCode.CONFLICT, given))
        return _measure("area_m2", request.area_m2, catalogue.max_side_m**2, problems)
    length_m, width_m = (
        _measure(name, side_m, catalogue.max_side_m, problems) for name, side_m in sides.items()
    )
    return None if length_m is None or width_m is None else length_m * width_m


def _measure(
    field: str, value: Decimal | None, most: Decimal, problems: list[Problem]
) -> Decimal | None:
    if value is None:
        problems.append(Problem(field, ProblemCode.MISSING))
    elif value.is_nan() or not 0 < value <= most:
        problems.append(Problem(field, ProblemCode.OUT_OF_RANGE, (_tidy(most),)))
    elif value != round(value, MAX_DECIMALS):
        problems.append(Problem(field, ProblemCode.TOO_PRECISE, (MAX_DECIMALS,)))
    else:
        return value
    return None


def _colour(catalogue: Catalogue, request: PriceRequest, problems: list[Problem]) -> Colour | None:
    if request.colour is None:
        return catalogue.default_colour
    colour = catalogue.colour(request.colour)
    if colour is None:
        there_are = tuple(each.id for each in catalogue.colours)
        problems.append(Problem("colour", ProblemCode.UNKNOWN, there_are))
    return colour


def _finishes(
    catalogue: Catalogue, request: PriceRequest, problems: list[Problem]
) -> tuple[Finish, ...]:
    """In the order of the catalogue: which side was named first makes no difference."""
    named = [catalogue.finish(name) for name in request.finishes]
    if None in named:
        there_are = tuple(each.id for each in catalogue.finishes)
        problems.append(Problem("finishes", ProblemCode.UNKNOWN, there_are))
    if len(named) > catalogue.max_finish_sides:
        problems.append(Problem("finishes", ProblemCode.TOO_MANY, (catalogue.max_finish_sides,)))
    return tuple(each for each in catalogue.finishes for finish in named if finish == each)


def _included(option: Option, asked: bool | None) -> bool:
    return option.included_by_default if asked is None else asked


def _choice(included: bool) -> str:
    return "included" if included else "not_included"


def _sides(finishes: Sequence[Finish]) -> str:
    counted = Counter(each.id for each in finishes)
    return ", ".join(f"{sides} {finish}" for finish, sides in counted.items()) or "none"


def _to_cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


def _tidy(number: Decimal) -> Decimal:
    """Without the zeros that multiplication leaves behind: 150, not 150.0000."""
    whole = number.quantize(Decimal(1))
    return whole if whole == number else number.normalize()
