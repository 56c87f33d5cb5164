"""Questions about products are answered with the catalogue's own sentences."""

import pytest

from agents.catalogue import Language, load_catalogue
from agents.product_answers import answer

CATALOGUE = load_catalogue()


@pytest.mark.parametrize(
    ("question", "product", "products", "topics"),
    [
        ("¿El Isodac es ignífugo?", None, ("isodec",), ("fire",)),
        ("is ROCK WOOL good against noise?", None, ("lana_roca",), ("sound",)),
        ("¿se moja?", "eps", ("poliestireno",), ("water",)),
        ("¿se moja?", None, (), ("water",)),
        ("isodec o lana de roca?", None, ("isodec", "lana_roca"), ()),
        # A name is a word, not a part of one.
        ("steps", None, (), ()),
        # The product that is asked about now, not the one asked about before.
        ("y la lana de roca?", "isodec", ("lana_roca",), ()),
        ("?", "unobtainium", (), ()),
    ],
)
def test_what_a_question_is_about(
    question: str, product: str | None, products: tuple[str, ...], topics: tuple[str, ...]
) -> None:
    found = answer(CATALOGUE, question, product=product, language="es")
    assert (found.products, found.topics) == (products, topics)
    assert found.text


def test_a_topic_of_a_product_is_answered_with_its_fact() -> None:
    isodec = CATALOGUE.product("isodec")
    assert isodec is not None
    fact = isodec.fact("fire")
    assert fact is not None
    for language in ("es", "en"):
        found = answer(CATALOGUE, "isodec fuego", product=None, language=language)
        assert fact.in_language(language) in found.text


def test_a_topic_that_a_product_says_nothing_about_is_admitted() -> None:
    assert answer(CATALOGUE, "isodec: noise?", product=None, language="en").text == (
        "I do not have that information about Isodec."
    )


@pytest.mark.parametrize(
    ("language", "words"),
    [("es", "espesores de 50, 75, 100"), ("en", "thicknesses of 50, 75, 100")],
)
def test_a_product_alone_is_described(language: Language, words: str) -> None:
    assert words in answer(CATALOGUE, "lana de roca", product=None, language=language).text


def test_a_question_about_nothing_known_says_what_there_is() -> None:
    found = answer(CATALOGUE, "¿qué tienen?", product=None, language="es")
    assert all(product.name.es in found.text for product in CATALOGUE.products)


def test_a_price_is_not_guessed() -> None:
    found = answer(CATALOGUE, "¿cuánto cuesta el isodec?", product=None, language="es")
    assert "cotización" in found.text
