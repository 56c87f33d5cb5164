"""Answers to questions about products, from the catalogue's own sentences.

Keeps secret how a product and a topic are found in a question. What
`answer_product_question` takes and gives is defined here, since more than one agent can be
asked for it and none knows the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agents.catalogue import Catalogue, Language, Product, Topic, names_of, plain
from agents.messages import text
from agents.stores import stores_of
from orchestrator import TaskContext

T = TypeVar("T", Product, Topic)

# As `plain` leaves them. Prices are not the catalogue's to tell: they need a quote.
PRICE_WORDS: Final = (
    {"precio", "precios", "cuesta", "cuestan", "vale", "valen", "sale", "salen", "costo"}
    | {"costos", "cotizar", "cotizacion"}
    | {"price", "prices", "cost", "costs", "quote"}
)


class ProductQuestion(BaseModel):
    """Payload of `answer_product_question`. `product` is an id or any name of a product, for
    a question that names none."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=10_000)
    product: str | None = Field(None, min_length=1, max_length=200)
    language: Language = "es"


@dataclass(frozen=True)
class Answer:
    """An answer in the customer's language, and the ids of what it is about."""

    text: str
    products: tuple[str, ...]
    topics: tuple[str, ...]


def answer(
    catalogue: Catalogue, question: str, *, product: str | None, language: Language
) -> Answer:
    """What the catalogue says to a question; pure.

    Without a product that it knows, the answer says what there is. Without a topic, it
    describes the products.
    """
    asked = f" {plain(question)} "
    products = _named_in(asked, catalogue.products)
    if not products and product is not None:
        known = catalogue.product(product)
        products = [] if known is None else [known]
    topics = _named_in(asked, catalogue.topics)
    about_price = bool(PRICE_WORDS & set(asked.split()))
    if not products and not topics:
        return Answer(_what_there_is(catalogue, language), (), ())
    sentences: list[str] = []
    for each in products or catalogue.products:
        sentences += _about(each, topics, language)
    if about_price:
        sentences.append(text("price_needs", language))
    return Answer(
        " ".join(sentences),
        tuple(each.id for each in products),
        tuple(topic.id for topic in topics),
    )


def answer_product_question(context: TaskContext, asked: ProductQuestion) -> dict[str, Any]:
    """Answer from the catalogue in force. Returns {text, language, products, topics}, the
    last two being lists of ids."""
    catalogue = stores_of(context.engine).catalogues.current()
    found = answer(catalogue, asked.question, product=asked.product, language=asked.language)
    return {
        "text": found.text,
        "language": asked.language,
        "products": list(found.products),
        "topics": list(found.topics),
    }


def _named_in(asked: str, entries: Iterable[T]) -> list[T]:
    """The entries that are named in a plain text, in the order of the catalogue.

    A name within a longer one that matched too does not count: "panel isodec" is no "panel".
    """
    names = {plain(name): entry for entry in entries for name in names_of(entry)}
    found: list[T] = []
    for name in sorted(names, key=len, reverse=True):
        if name and f" {name} " in asked:
            asked = asked.replace(f" {name} ", "  ")
            found.append(names[name])
    return [entry for entry in dict.fromkeys(names.values()) if entry in found]


def _about(product: Product, topics: Sequence[Topic], language: Language) -> list[str]:
    name = product.name.in_language(language)
    if not topics:
        thicknesses = ", ".join(str(each) for each in product.thicknesses_mm)
        return [
            text(
                "product_fact",
                language,
                product=name,
                fact=product.description.in_language(language),
            ),
            text("product_made_in", language, thicknesses=thicknesses),
        ]
    sentences = []
    for topic in topics:
        fact = product.fact(topic.id)
        sentences.append(
            text("fact_unknown", language, product=name)
            if fact is None
            else text("product_fact", language, product=name, fact=fact.in_language(language))
        )
    return sentences


def _what_there_is(catalogue: Catalogue, language: Language) -> str:
    names = ", ".join(product.name.in_language(language) for product in catalogue.products)
    return text("products", language, products=names)
