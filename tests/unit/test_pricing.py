"""Prices are those of the rule book, exact, and a refusal says what is possible."""

from dataclasses import replace
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.catalogue import Catalogue, load_catalogue
from agents.quote.pricing import (
    CENT,
    PriceRequest,
    PricingRefused,
    Problem,
    ProblemCode,
    price,
    price_quote,
    tax_within,
)

CATALOGUE = load_catalogue()


def request(
    product: str = "isodec",
    thickness_mm: int = 100,
    sides: tuple[str, str] | None = ("10", "5"),
    area: str | None = None,
    colour: str | None = None,
    finishes: tuple[str, ...] = (),
    anchors: bool | None = None,
    freight: bool | None = None,
) -> PriceRequest:
    return PriceRequest(
        product=product,
        thickness_mm=thickness_mm,
        length_m=Decimal(sides[0]) if sides and area is None else None,
        width_m=Decimal(sides[1]) if sides and area is None else None,
        area_m2=None if area is None else Decimal(area),
        colour=colour,
        finishes=finishes,
        anchors=anchors,
        freight=freight,
    )


def problems_of(asked: PriceRequest, catalogue: Catalogue = CATALOGUE) -> tuple[Problem, ...]:
    with pytest.raises(PricingRefused) as refused:
        price(catalogue, asked)
    return refused.value.problems


# --- The rule book ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "unit_price", "total"),
    [
        (request(colour="blanco"), "150", "7500.00"),
        (request(colour="gris"), "157.5", "7875.00"),
        (request(colour="personalizado"), "172.5", "8625.00"),
        (request(thickness_mm=150), "180", "9000.00"),
        (request(thickness_mm=50), "120", "6000.00"),
        (request(thickness_mm=125, sides=("6.5", "4")), "165", "4290.00"),
        (request(sides=("3.33", "2.17"), colour="gris"), "157.5", "1138.11"),
        (request(finishes=("gotero",) * 4), "180", "9000.00"),
        (request(anchors=False, freight=False), "128.25", "6412.50"),
        (request("poliestireno", 75, ("8", "4")), "108", "3456.00"),
        (request("lana_roca", 50, ("9", "7")), "112", "7056.00"),
    ],
)
def test_examples_of_the_rule_book(asked: PriceRequest, unit_price: str, total: str) -> None:
    priced = price(CATALOGUE, asked)
    assert str(priced.unit_price_per_m2) == unit_price
    assert str(priced.total) == total


@pytest.mark.parametrize(
    ("product", "base", "thicknesses_mm"),
    [
        ("isodec", 150, (50, 75, 100, 125, 150)),
        ("poliestireno", 120, (25, 50, 75, 100)),
        ("lana_roca", 140, (50, 75, 100)),
    ],
)
def test_every_product_in_every_thickness(
    product: str, base: int, thicknesses_mm: tuple[int, ...]
) -> None:
    factors = {25: "0.7", 50: "0.8", 75: "0.9", 100: "1.0", 125: "1.1", 150: "1.2"}
    for thickness_mm, factor in factors.items():
        asked = request(product, thickness_mm, area="1")
        if thickness_mm in thicknesses_mm:
            assert price(CATALOGUE, asked).unit_price_per_m2 == base * Decimal(factor)
        else:
            assert problems_of(asked) == (
                Problem("thickness_mm", ProblemCode.NOT_MADE, thicknesses_mm),
            )


@pytest.mark.parametrize(
    ("asked", "unit_price"),
    [
        (request(finishes=("gotero",)), "157.5"),
        (request(finishes=("hormigon",)), "165"),
        (request(finishes=("gotero", "gotero", "hormigon", "hormigon")), "195"),
        (request(finishes=("hormigon",) * 4), "210"),
        (request(anchors=True, freight=True), "150"),
        (request(anchors=False), "142.5"),
        (request(freight=False), "135"),
        (request(colour="gris", finishes=("gotero",), freight=False), "148.8375"),
    ],
)
def test_finishes_anchors_and_freight(asked: PriceRequest, unit_price: str) -> None:
    assert str(price(CATALOGUE, asked).unit_price_per_m2) == unit_price


def test_area_may_be_given_instead_of_the_sides() -> None:
    by_area, by_sides = price(CATALOGUE, request(area="50")), price(CATALOGUE, request())
    assert (by_area.total, by_area.area_m2) == (by_sides.total, by_sides.area_m2)
    assert by_area.length_m is by_area.width_m is None


def test_what_is_not_said_is_the_default_of_the_catalogue() -> None:
    priced = price(CATALOGUE, request())
    assert (priced.colour, priced.finishes) == ("blanco", ())
    assert priced.anchors
    assert priced.freight


def test_names_that_customers_use_come_back_as_ids() -> None:
    priced = price(
        CATALOGUE, request("LANA DE ROCA", 50, colour="Grey", finishes=("Hormigón", "drip edge"))
    )
    assert priced.product == "lana_roca"
    assert priced.colour == "gris"
    assert priced.finishes == ("gotero", "hormigon")


def test_the_breakdown_multiplies_to_the_unit_price() -> None:
    priced = price(
        CATALOGUE,
        request(
            "isodec", 125, colour="gris", finishes=("hormigon", "gotero", "gotero"), freight=False
        ),
    )
    assert [(each.name, each.choice, str(each.value)) for each in priced.factors] == [
        ("thickness", "125 mm", "1.1"),
        ("colour", "gris", "1.05"),
        ("finishes", "2 gotero, 1 hormigon", "1.20"),
        ("anchors", "included", "1.00"),
        ("freight", "not_included", "0.90"),
    ]
    product = priced.base_price_per_m2
    for factor in priced.factors:
        product *= factor.value
    assert product == priced.unit_price_per_m2 == Decimal("187.11")


@pytest.mark.parametrize(
    ("total", "tax"),
    [("7500.00", "1352.46"), ("1138.11", "205.23"), ("1.22", "0.22"), ("0.01", "0.00")],
)
def test_the_tax_is_the_part_contained_in_the_total(total: str, tax: str) -> None:
    assert tax_within(Decimal(total), Decimal("0.22")) == Decimal(tax)


def test_half_a_cent_goes_up_and_the_unit_price_is_not_rounded_first() -> None:
    # 148.8375 a square metre: rounded first, 100 m² would cost 14,884.00.
    asked = request(colour="gris", finishes=("gotero",), freight=False, area="100")
    assert price(CATALOGUE, asked).total == Decimal("14883.75")
    # 150 × 0.0007 = 0.105 and 150 × 0.0005 = 0.075: half a cent, above an even and an odd one.
    assert price(CATALOGUE, request(area="0.0007")).total == Decimal("0.11")
    assert price(CATALOGUE, request(area="0.0005")).total == Decimal("0.08")


# --- Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (
            request("durlock"),
            Problem("product", ProblemCode.UNKNOWN, ("isodec", "poliestireno", "lana_roca")),
        ),
        (
            request(""),
            Problem("product", ProblemCode.UNKNOWN, ("isodec", "poliestireno", "lana_roca")),
        ),
        (
            request("lana_roca", 150),
            Problem("thickness_mm", ProblemCode.NOT_MADE, (50, 75, 100)),
        ),
        (
            request(colour="rojo"),
            Problem("colour", ProblemCode.UNKNOWN, ("blanco", "gris", "personalizado")),
        ),
        (
            request(finishes=("gotero", "ondulado")),
            Problem("finishes", ProblemCode.UNKNOWN, ("gotero", "hormigon")),
        ),
        (
            request(finishes=("gotero",) * 5),
            Problem("finishes", ProblemCode.TOO_MANY, (4,)),
        ),
        (
            request(sides=("0", "5")),
            Problem("length_m", ProblemCode.OUT_OF_RANGE, (Decimal(1000),)),
        ),
        (
            request(sides=("10", "-5")),
            Problem("width_m", ProblemCode.OUT_OF_RANGE, (Decimal(1000),)),
        ),
        (
            request(sides=("1000.01", "5")),
            Problem("length_m", ProblemCode.OUT_OF_RANGE, (Decimal(1000),)),
        ),
        (
            request(area="1000000.01"),
            Problem("area_m2", ProblemCode.OUT_OF_RANGE, (Decimal(1_000_000),)),
        ),
        (
            request(area="NaN"),
            Problem("area_m2", ProblemCode.OUT_OF_RANGE, (Decimal(1_000_000),)),
        ),
        (
            request(area="Infinity"),
            Problem("area_m2", ProblemCode.OUT_OF_RANGE, (Decimal(1_000_000),)),
        ),
        (
            request(sides=("3.3333333", "2")),
            Problem("length_m", ProblemCode.TOO_PRECISE, (6,)),
        ),
        (
            request(sides=("0.001", "0.001")),
            Problem("area_m2", ProblemCode.TOO_SMALL, (CENT,)),
        ),
    ],
)
def test_a_refusal_names_the_field_and_what_is_possible(
    asked: PriceRequest, problem: Problem
) -> None:
    assert problems_of(asked) == (problem,)


def test_the_largest_sides_have_a_price() -> None:
    assert price(CATALOGUE, request(sides=("1000", "1000"))).total == Decimal("150000000.00")


def test_sides_that_are_missing_are_named() -> None:
    none = request(sides=None)
    assert [(each.field, each.code) for each in problems_of(none)] == [
        ("length_m", ProblemCode.MISSING),
        ("width_m", ProblemCode.MISSING),
    ]
    one = replace(none, length_m=Decimal(3))
    assert problems_of(one) == (Problem("width_m", ProblemCode.MISSING),)


def test_area_and_sides_together_are_refused() -> None:
    both = replace(request(area="50"), width_m=Decimal(5))
    assert problems_of(both) == (Problem("area_m2", ProblemCode.CONFLICT, ("width_m",)),)


def test_all_problems_are_told_at_once_and_the_message_has_nothing_the_customer_wrote() -> None:
    asked = request("mi secreto", sides=("0", "2000"), colour="rojo", finishes=("x",) * 5)
    with pytest.raises(PricingRefused) as refused:
        price(CATALOGUE, asked)
    assert str(refused.value) == (
        "product: unknown, length_m: out_of_range, width_m: out_of_range, "
        "colour: unknown, finishes: unknown, finishes: too_many"
    )


def test_a_problem_as_a_document_is_plain_data() -> None:
    problem = Problem("length_m", ProblemCode.OUT_OF_RANGE, (Decimal(1000),))
    assert problem.to_document() == {
        "field": "length_m",
        "code": "out_of_range",
        "allowed": ["1000"],
    }


# --- Quotes -------------------------------------------------------------------------------


def test_a_quote_is_the_sum_of_its_items() -> None:
    catalogue = replace(CATALOGUE, version=7)
    quote = price_quote(
        catalogue, [request(area="0.0007"), request(area="0.0007"), request("lana_roca", 50)]
    )
    assert [str(item.total) for item in quote.items] == ["0.11", "0.11", "5600.00"]
    assert str(quote.total) == "5600.22"
    assert quote.tax == tax_within(quote.total, Decimal("0.22"))
    assert (quote.currency, quote.validity_days, quote.catalogue_version) == ("UYU", 15, 7)
    assert quote.tax_rate == Decimal("0.22")


def test_a_quote_names_the_items_that_are_wrong() -> None:
    with pytest.raises(PricingRefused) as refused:
        price_quote(CATALOGUE, [request(), request(colour="rojo"), request(sides=("1", "0"))])
    assert [each.field for each in refused.value.problems] == ["items.1.colour", "items.2.width_m"]


def test_a_quote_of_nothing_is_refused() -> None:
    with pytest.raises(PricingRefused) as refused:
        price_quote(CATALOGUE, [])
    assert refused.value.problems == (Problem("items", ProblemCode.MISSING),)


@pytest.mark.parametrize(
    ("asked", "area", "total"),
    [
        (replace(request(sides=("2", "1")), quantity=3), "6", "900.00"),
        (replace(request(area="20"), quantity=2), "40", "6000.00"),
        # 3 × 1138.1143... rounded once, not 3 × 1138.11
        (replace(request(sides=("3.33", "2.17"), colour="gris"), quantity=3), "21.6783",
         "3414.33"),
    ],
)  # fmt: skip
def test_several_pieces_are_priced_by_their_whole_area(
    asked: PriceRequest, area: str, total: str
) -> None:
    priced = price(CATALOGUE, asked)
    assert (str(priced.area_m2), str(priced.total)) == (area, total)


@pytest.mark.parametrize("quantity", [0, -1, 10_001])
def test_a_number_of_pieces_out_of_range_is_refused(quantity: int) -> None:
    assert problems_of(replace(request(), quantity=quantity)) == (
        Problem("quantity", ProblemCode.OUT_OF_RANGE, (10_000,)),
    )


def test_a_quote_as_a_document_holds_plain_data() -> None:
    document = price_quote(
        CATALOGUE, [request(sides=("1E+1", "5.00"), finishes=("gotero",))]
    ).to_document()
    assert document["total"] == "7875.00"
    assert document["items"] == [
        {
            "product": "isodec",
            "thickness_mm": 100,
            "length_m": "10",
            "width_m": "5",
            "quantity": 1,
            "area_m2": "50",
            "colour": "blanco",
            "finishes": ["gotero"],
            "anchors": True,
            "freight": True,
            "base_price_per_m2": "150",
            "factors": [
                {"name": "thickness", "choice": "100 mm", "value": "1.0"},
                {"name": "colour", "choice": "blanco", "value": "1.00"},
                {"name": "finishes", "choice": "1 gotero", "value": "1.05"},
                {"name": "anchors", "choice": "included", "value": "1.00"},
                {"name": "freight", "choice": "included", "value": "1.00"},
            ],
            "unit_price_per_m2": "157.5",
            "total": "7875.00",
            "tax": "1420.08",
        }
    ]


# --- Properties ---------------------------------------------------------------------------

areas = st.decimals(min_value="0.01", max_value=1_000_000, places=6)
sides_m = st.decimals(min_value="0.1", max_value=1000, places=6)
finish_lists = st.lists(st.sampled_from(["gotero", "hormigon"]), max_size=4).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> PriceRequest:
    product = draw(st.sampled_from(CATALOGUE.products))
    by_area = draw(st.booleans())
    return PriceRequest(
        product=product.id,
        thickness_mm=draw(st.sampled_from(product.thicknesses_mm)),
        length_m=None if by_area else draw(sides_m),
        width_m=None if by_area else draw(sides_m),
        area_m2=draw(areas) if by_area else None,
        colour=draw(st.sampled_from([None, "blanco", "gris", "personalizado"])),
        finishes=draw(finish_lists),
        anchors=draw(st.sampled_from([None, True, False])),
        freight=draw(st.sampled_from([None, True, False])),
    )


def half_up(amount: Fraction) -> Fraction:
    return Fraction((amount * 100 + Fraction(1, 2)).__floor__(), 100)


@given(requests())
def test_the_total_is_the_exact_product_rounded_once(asked: PriceRequest) -> None:
    priced = price(CATALOGUE, asked)
    exact = Fraction(priced.base_price_per_m2)
    for factor in priced.factors:
        exact *= Fraction(factor.value)
    assert Fraction(priced.unit_price_per_m2) == exact
    area = asked.area_m2
    if area is None:
        assert asked.length_m is not None
        assert asked.width_m is not None
        exact *= Fraction(asked.length_m) * Fraction(asked.width_m)
    else:
        exact *= Fraction(area)
    assert Fraction(priced.total) == half_up(exact)
    assert priced.total > 0
    assert priced.total.as_tuple().exponent == -2


@given(requests())
def test_tax_and_net_make_the_total(asked: PriceRequest) -> None:
    priced = price(CATALOGUE, asked)
    assert 0 <= priced.tax < priced.total
    assert Fraction(priced.tax) == half_up(Fraction(priced.total) * 22 / 122)


@given(requests(), areas, areas)
def test_more_area_never_costs_less(asked: PriceRequest, one: Decimal, other: Decimal) -> None:
    by_area = replace(asked, length_m=None, width_m=None)
    less, more = sorted([one, other])
    less_total = price(CATALOGUE, replace(by_area, area_m2=less)).total
    assert less_total <= price(CATALOGUE, replace(by_area, area_m2=more)).total


@given(requests(), sides_m, sides_m)
def test_the_order_of_sides_and_of_finishes_makes_no_difference(
    asked: PriceRequest, length_m: Decimal, width_m: Decimal
) -> None:
    asked = replace(asked, area_m2=None, length_m=length_m, width_m=width_m)
    priced = price(CATALOGUE, asked)
    turned = price(CATALOGUE, replace(asked, length_m=width_m, width_m=length_m))
    assert turned == replace(priced, length_m=turned.length_m, width_m=turned.width_m)
    for finishes in permutations(asked.finishes):
        assert price(CATALOGUE, replace(asked, finishes=finishes)) == priced


@given(st.lists(requests(), min_size=1, max_size=6))
def test_the_order_of_items_makes_no_difference_to_the_sum(items: list[PriceRequest]) -> None:
    quote, turned = price_quote(CATALOGUE, items), price_quote(CATALOGUE, items[::-1])
    assert quote.total == sum(item.total for item in quote.items)
    assert (turned.total, turned.tax) == (quote.total, quote.tax)
    assert turned.items == quote.items[::-1]


@given(requests())
def test_the_caller_s_decimal_context_makes_no_difference(asked: PriceRequest) -> None:
    priced = price_quote(CATALOGUE, [asked])
    with localcontext() as context:
        context.prec = 3
        assert price_quote(CATALOGUE, [asked]) == priced
        assert getcontext().prec == 3


@given(
    st.builds(
        PriceRequest,
        product=st.sampled_from(["isodec", "eps", "?"]) | st.text(),
        thickness_mm=st.sampled_from([50, 100]) | st.integers(),
        length_m=st.none() | st.decimals(),
        width_m=st.none() | st.decimals(),
        area_m2=st.none() | st.decimals(),
        colour=st.none() | st.text(),
        finishes=st.lists(st.sampled_from(["gotero", "hormigon"]) | st.text()).map(tuple),
        anchors=st.none() | st.booleans(),
        freight=st.none() | st.booleans(),
    )
)
def test_any_request_has_a_price_or_a_refusal_with_reasons(asked: PriceRequest) -> None:
    total: Decimal | None = None
    problems: tuple[Problem, ...] = ()
    try:
        total = price(CATALOGUE, asked).total
    except PricingRefused as refused:
        problems = refused.problems
    assert (total is None) == bool(problems)
    assert total is None or total > 0
    assert len(set(problems)) == len(problems)


# --- Other catalogues ---------------------------------------------------------------------


def test_another_business_has_its_own_defaults_and_limits() -> None:
    document = CATALOGUE.to_document()
    document["max_side_m"] = "20.5"
    document["max_finish_sides"] = 2
    document["anchors"]["default"] = "not_included"
    document["colours"][0]["default"] = False
    document["colours"][1]["default"] = True
    document["tax_rate"] = "0"
    own = Catalogue.from_document(document)
    priced = price(own, request())
    assert (priced.colour, priced.anchors, priced.tax) == ("gris", False, Decimal(0))
    assert str(priced.unit_price_per_m2) == "149.625"
    assert problems_of(request(sides=("20.51", "1"), finishes=("gotero",) * 3), own) == (
        Problem("length_m", ProblemCode.OUT_OF_RANGE, (Decimal("20.5"),)),
        Problem("finishes", ProblemCode.TOO_MANY, (2,)),
    )


def test_numbers_of_any_length_that_a_catalogue_may_hold_stay_exact() -> None:
    long = "123456789.987654321"
    document = CATALOGUE.to_document()
    document["products"][0]["base_price_per_m2"] = long
    document["thickness_factors"]["100"] = long
    document["colours"][0]["factor"] = long
    for option in ("anchors", "freight"):
        document[option]["included"] = long
    own = Catalogue.from_document(document)
    priced = price(own, request(area="999999.999999"))
    assert Fraction(priced.unit_price_per_m2) == Fraction(long) ** 5
    assert Fraction(priced.total) == half_up(Fraction(long) ** 5 * Fraction("999999.999999"))
