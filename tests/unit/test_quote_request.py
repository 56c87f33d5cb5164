"""What is asked for, as JSON, becomes what is priced: no digit lost, nothing unknown taken."""

import json
from decimal import Decimal
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from agents.catalogue import load_catalogue
from agents.quote.agent import Item, QuoteWanted
from agents.quote.pricing import PriceRequest, price

CATALOGUE = load_catalogue()
SIDES = {"product": "isodec", "thickness_mm": 100, "length_m": 10, "width_m": 5}


def request_of(**item: Any) -> PriceRequest:
    return Item.model_validate(json.loads(json.dumps(item))).price_request()


@pytest.mark.parametrize("written", ["3.33", 3.33])
def test_a_measure_keeps_its_digits_as_a_string_and_as_a_number(written: object) -> None:
    asked = request_of(**SIDES | {"length_m": written, "thickness_mm": "100"})
    assert asked.length_m == Decimal("3.33")
    assert asked.thickness_mm == 100


def test_what_is_left_out_is_left_to_the_catalogue() -> None:
    assert request_of(**SIDES) == PriceRequest("isodec", 100, Decimal(10), Decimal(5))


@pytest.mark.parametrize(
    ("finishes", "sides"),
    [
        (["gotero", "gotero", "hormigon"], ("gotero", "gotero", "hormigon")),
        ([["gotero", 2], "hormigon"], ("gotero", "gotero", "hormigon")),
        ([], ()),
        (None, ()),
    ],
)
def test_finishes_come_one_by_one_or_counted(finishes: object, sides: tuple[str, ...]) -> None:
    assert request_of(**SIDES, finishes=finishes).finishes == sides


def test_an_item_of_several_pieces_is_priced_as_such() -> None:
    assert price(CATALOGUE, request_of(**SIDES, quantity=3)).total == Decimal("22500.00")


def test_a_thickness_in_fractions_is_one_that_nothing_is_made_in() -> None:
    assert request_of(**SIDES | {"thickness_mm": "62.5"}).thickness_mm == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"length_m": "NaN"},
        {"length_m": "ten"},
        {"length_m": True},
        {"length_m": "9" * 100},
        {"quantity": "many"},
        {"product": ""},
        {"product": "x" * 201},
        {"colour": 7},
        {"finishes": ["gotero"] * 101},
        {"finishes": [["gotero", 0]]},
        {"discount": 0.5},
    ],
)
def test_what_cannot_be_meant_is_refused_at_both_doors(wrong: dict[str, Any]) -> None:
    payload = {"items": [SIDES | wrong]}
    with pytest.raises(ValidationError):
        QuoteWanted.model_validate(payload)
    declared = jsonschema_rs.validator_for(QuoteWanted.model_json_schema())
    assert not declared.is_valid(payload)


def test_a_number_that_no_store_can_hold_is_not_accepted() -> None:
    declared = jsonschema_rs.validator_for(QuoteWanted.model_json_schema())
    assert not declared.is_valid({"items": [SIDES | {"length_m": 10**20}]})


@pytest.mark.parametrize(
    "payload",
    [
        {"items": [SIDES]},
        {
            "session_id": "s1",
            "customer": {"name": "Ana", "phone": None},
            "language": "en",
            "items": [
                SIDES | {"finishes": [["gotero", 2], "hormigon"], "anchors": False},
                {"product": "eps", "thickness_mm": "75", "area_m2": "20.5", "quantity": None},
            ],
        },
        # Out of every range, and still the price calculation's to refuse with what there is.
        {"items": [SIDES | {"length_m": "-1", "width_m": "9" * 20, "quantity": 10**6}]},
    ],
)
def test_what_may_be_meant_passes_both_doors(payload: dict[str, Any]) -> None:
    QuoteWanted.model_validate(payload)
    jsonschema_rs.validator_for(QuoteWanted.model_json_schema()).validate(payload)
