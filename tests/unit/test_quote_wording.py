"""A quote in one line, as its customer would write it."""

from decimal import Decimal
from typing import Any

import pytest

from agents.catalogue import Language, load_catalogue
from agents.quote.pricing import PriceRequest, price
from agents.quote.wording import describe_item

CATALOGUE = load_catalogue()


def item(**asked: Any) -> dict[str, Any]:
    sides = {} if "area_m2" in asked else {"length_m": Decimal("6.5"), "width_m": Decimal(4)}
    request = PriceRequest(**({"product": "isodec", "thickness_mm": 125} | sides | asked))
    return price(CATALOGUE, request).to_document()


@pytest.mark.parametrize(
    ("asked", "language", "words"),
    [
        ({}, "es", "Isodec 125 mm, 6,5 × 4 m, blanco"),
        ({}, "en", "Isodec 125 mm, 6.5 × 4 m, white"),
        ({"quantity": 3}, "es", "Isodec 125 mm, 3 de 6,5 × 4 m, blanco"),
        ({"quantity": 3}, "en", "Isodec 125 mm, 3 of 6.5 × 4 m, white"),
        ({"area_m2": Decimal("1250.5")}, "es", "Isodec 125 mm, 1.250,5 m², blanco"),
        ({"area_m2": Decimal(20), "quantity": 2}, "es", "Isodec 125 mm, 40 m², blanco"),
        (
            {"colour": "gris", "finishes": ("hormigon", "gotero", "gotero"), "freight": False},
            "es",
            "Isodec 125 mm, 6,5 × 4 m, gris, gotero × 2, hormigón × 1, sin flete",
        ),
        (
            {"product": "rock wool", "thickness_mm": 50, "anchors": False},
            "en",
            "Rock wool 50 mm, 6.5 × 4 m, white, without anchors",
        ),
    ],
)
def test_an_item_in_words(asked: dict[str, Any], language: Language, words: str) -> None:
    assert describe_item(item(**asked), CATALOGUE, language) == words
