"""The quote agent: prices what is asked for by the catalogue in force, and keeps the quote."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from agents.business import RESOURCE as BUSINESS
from agents.business import load_business, publish_business
from agents.catalogue import Catalogue, Language
from agents.product_answers import answer_product_question
from agents.quote.pdf import quote_pdf
from agents.quote.pricing import (
    PriceRequest,
    PricingRefused,
    Problem,
    ProblemCode,
    price,
    price_quote,
)
from agents.quote.wording import describe_item, name_products, quote_document
from agents.quotes import HOLDING, RESOURCE, NewQuote, QuoteAction, QuoteClosed, QuoteNotFound
from agents.stores import prepare, stores_of
from orchestrator import Agent, TaskContext, TaskError
from orchestrator.engine import Engine
from orchestrator.errors import NotFound
from orchestrator.phones import e164


def open_shop(engine: Engine) -> None:
    """Stores, and whose shop it is."""
    prepare(engine)
    publish_business(engine)


agent = Agent(
    role="quote",
    name="Quote agent",
    capabilities=[
        "quote_generation",
        "price_calculation",
        "validation",
        "product_knowledge",
        "specification_parsing",
    ],
    slots=5,
    setup=open_shop,
    resources=[RESOURCE, BUSINESS],
    holdings=[HOLDING],
    workflows=Path(__file__).with_name("workflows"),
)

# A number, or a string of its digits: JSON's own numbers pass through floats on their way,
# whose shortest digits are still those that were written. Limits here are far out: what a
# customer may really ask for is the catalogue's to say, with what is possible instead.
MAX_INT = 10**9  # fits everywhere: BSON's integers end, JSON's do not
Measure = Annotated[
    Decimal,
    Field(max_digits=60, decimal_places=30, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": -MAX_INT, "maximum": MAX_INT},
                {"type": "string", "pattern": r"^-?[0-9]{1,30}(\.[0-9]{1,30})?$"},
            ]
        }
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Sides = Annotated[int, Field(ge=1, le=1000)]
QuoteId = Annotated[str, Field(min_length=1, max_length=200)]


class Item(BaseModel):
    """One thing to be priced: both sides of a piece or its area, in metres.

    Products, colours and finishes go by id or any name of the catalogue. A finish stands
    once for each side that has it, or with the number of its sides: ["gotero", 4].
    """

    model_config = ConfigDict(extra="forbid")

    product: Name
    thickness_mm: Measure
    length_m: Measure | None = None
    width_m: Measure | None = None
    area_m2: Measure | None = None
    quantity: Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)] | None = None
    colour: Name | None = None
    finishes: Annotated[list[Name | tuple[Name, Sides]], Field(max_length=100)] | None = None
    anchors: bool | None = None
    freight: bool | None = None

    def price_request(self) -> PriceRequest:
        """The same for the price calculation."""
        finishes: list[str] = []
        for finish in self.finishes or ():
            name, sides = (finish, 1) if isinstance(finish, str) else finish
            finishes += [name] * sides
        whole_mm = self.thickness_mm == self.thickness_mm.to_integral_value()
        return PriceRequest(
            product=self.product,
            # 0 is never made either, and the refusal says what is.
            thickness_mm=int(self.thickness_mm) if whole_mm else 0,
            length_m=self.length_m,
            width_m=self.width_m,
            area_m2=self.area_m2,
            quantity=1 if self.quantity is None else self.quantity,
            colour=self.colour,
            finishes=tuple(finishes),
            anchors=self.anchors,
            freight=self.freight,
        )


class Customer(BaseModel):
    """Whose quote it is, as far as known."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200)
    phone: str | None = Field(None, max_length=40)


def _e164(phone: str | None) -> str | None:
    """One way of writing, so that a customer's quotes are found; what is no number stays as it
    came."""
    if phone is None:
        return None
    try:
        return e164(phone)
    except ValueError:
        return phone


class QuoteWanted(BaseModel):
    """Payload of `create_quote`. `supersedes` is the id of the quote that this one corrects:
    it has the same number then, and the next version."""

    model_config = ConfigDict(extra="forbid")

    session_id: str | None = Field(None, min_length=1, max_length=200)
    customer: Customer = Customer()
    language: Language = "es"
    items: list[Item] = Field(min_length=1, max_length=60)
    supersedes: QuoteId | None = None


class ItemSought(Item):
    """A thing that is to be priced, as far as it is known."""

    product: Name | None = None  # type: ignore[assignment]
    thickness_mm: Measure | None = None  # type: ignore[assignment]


class QuoteSought(BaseModel):
    """Payload of `check_quote_request`: what is known of what is wanted."""

    model_config = ConfigDict(extra="forbid")

    items: list[ItemSought] = Field(default_factory=list, max_length=60)


class QuoteNamed(BaseModel):
    """Payload of what is done with a quote that there is."""

    model_config = ConfigDict(extra="forbid")

    quote_id: QuoteId


class Due(BaseModel):
    """Payload of `expire_quotes`: at most how many in one run."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(1000, ge=1, le=10_000)


@agent.handles("check_quote_request", needs=["validation"])
def check_quote_request(context: TaskContext, sought: QuoteSought) -> dict[str, Any]:
    """Whether there is a price for what is known; nothing is stored.

    Returns {complete, items, problems}: the items in the shape in which quotes are requested,
    names of the catalogue as its ids, and what is in the way (`pricing.Problem.to_document`).
    """
    catalogue = stores_of(context.engine).catalogues.current()
    items = [sought_item(each, catalogue) for each in sought.items]
    problems = problems_of(sought.items, catalogue)
    return {
        "complete": not problems,
        "items": items,
        "problems": [problem.to_document() for problem in problems],
    }


def problems_of(sought: list[ItemSought], catalogue: Catalogue) -> list[Problem]:
    """What keeps things from having a price, with what is not known of them."""
    if not sought:
        return [Problem("items", ProblemCode.MISSING)]
    problems = []
    for place, each in enumerate(sought):
        missing = [name for name in ("product", "thickness_mm") if getattr(each, name) is None]
        found = [Problem(name, ProblemCode.MISSING) for name in missing]
        # The rest is checked with what stands for it, which is then no problem of its own.
        product = catalogue.products[0].id if each.product is None else each.product
        known = catalogue.product(product)
        thickness_mm = each.thickness_mm
        if thickness_mm is None:
            thickness_mm = Decimal((known or catalogue.products[0]).thicknesses_mm[0])
        whole = each.model_copy(update={"product": product, "thickness_mm": thickness_mm})
        try:
            price(catalogue, whole.price_request())
        except PricingRefused as refused:
            found += [
                problem
                for problem in refused.problems
                if problem.field not in missing
                and not (problem.field == "thickness_mm" and "product" in missing)
            ]
        problems += [replace(problem, field=f"items.{place}.{problem.field}") for problem in found]
    return problems


def sought_item(sought: ItemSought, catalogue: Catalogue) -> dict[str, Any]:
    """A thing as it is requested, by the catalogue's ids; names that it does not have are left
    as they are."""
    item = sought.model_dump(mode="json", exclude_none=True)
    for name, found in (
        ("product", catalogue.product(sought.product) if sought.product else None),
        ("colour", catalogue.colour(sought.colour) if sought.colour else None),
    ):
        if found is not None:
            item[name] = found.id
    if sought.finishes:
        sides: Counter[str] = Counter()
        for finish in sought.finishes:
            name, count = (finish, 1) if isinstance(finish, str) else finish
            known = catalogue.finish(name)
            sides[known.id if known else name] += count
        item["finishes"] = [[name, count] for name, count in sides.items()]
    return item


@agent.handles("create_quote", needs=["quote_generation", "price_calculation"])
def create_quote(context: TaskContext, wanted: QuoteWanted) -> dict[str, Any]:
    """Price the items, and store the quote once. Returns `wording.quote_document`.

    Raises:
        TaskError: `quote_refused`; its fact `problems` says for every field that is in the
            way what is possible instead (`pricing.Problem.to_document`).
    """
    stores = stores_of(context.engine)
    catalogue = stores.catalogues.current()
    try:
        priced = price_quote(catalogue, [item.price_request() for item in wanted.items])
    except PricingRefused as refused:
        # Prices may have changed since an earlier run of this task stored its quote.
        quote = stores.quotes.get(context.task.id)
        if quote is not None:
            return quote_document(quote)
        raise TaskError(
            "quote_refused",
            "There is no price for this.",
            problems=[problem.to_document() for problem in refused.problems],
        ) from None
    items = [item.to_document() for item in priced.items]
    words = [describe_item(item, catalogue, wanted.language) for item in items]
    quote = stores.quotes.store_once(
        NewQuote(
            id=context.task.id,
            session=wanted.session_id,
            customer_name=wanted.customer.name,
            customer_phone=_e164(wanted.customer.phone),
            language=wanted.language,
            product=name_products(items, catalogue, wanted.language),
            description="; ".join(words),
            items=tuple(
                item | {"description": said} for item, said in zip(items, words, strict=True)
            ),
            total=priced.total,
            tax=priced.tax,
            tax_rate=priced.tax_rate,
            currency=priced.currency,
            validity_days=priced.validity_days,
            catalogue_version=priced.catalogue_version,
            supersedes=wanted.supersedes,
            channel=_channel(context.engine, wanted.session_id),
        )
    )
    # In each run of this task, and of the same key: whoever dies here has it said again.
    context.engine.triggers.happened(
        "quote_created",
        quote.id,
        {
            "quote_id": quote.id,
            "session_id": quote.session,
            "total": float(quote.total),
            "currency": quote.currency,
            "language": quote.language,
        },
    )
    return quote_document(quote)


@agent.handles("accept_quote", needs=["quote_generation"])
def accept_quote(context: TaskContext, named: QuoteNamed) -> dict[str, Any]:
    """The customer takes the quote. Returns `wording.quote_document`.

    Raises:
        TaskError: `quote_not_found`; or `quote_closed`, its fact `standing` saying what the
            quote is instead: "rejected", "expired" or "superseded".
    """
    return _changed(context, named, "accept")


@agent.handles("reject_quote", needs=["quote_generation"])
def reject_quote(context: TaskContext, named: QuoteNamed) -> dict[str, Any]:
    """The customer does not take the quote. Returns and raises as `accept_quote`, where
    `standing` may also be "accepted"."""
    return _changed(context, named, "reject")


@agent.handles("render_quote", needs=["quote_generation"])
def render_quote(context: TaskContext, named: QuoteNamed) -> dict[str, Any]:
    """Make the quote's PDF and keep it. Returns {file_id, size_bytes}.

    Raises:
        TaskError: `quote_not_found`.
    """
    stores = stores_of(context.engine)
    quote = stores.quotes.get(named.quote_id)
    if quote is None:
        raise _not_found()
    pdf = quote_pdf(quote, load_business(context.engine.settings.business_file))
    context.engine.files.keep(
        quote.file_id, pdf, content_type="application/pdf", name=f"{quote.code}.pdf"
    )
    return {"file_id": quote.file_id, "size_bytes": len(pdf)}


@agent.handles("expire_quotes", needs=["quote_generation"])
def expire_quotes(context: TaskContext, due: Due) -> dict[str, Any]:
    """Mark the open quotes whose time is over. Returns {expired: how many}."""
    return {"expired": stores_of(context.engine).quotes.expire_due(due.limit)}


def _channel(engine: Engine, session_id: str | None) -> str | None:
    if session_id is None:
        return None
    try:
        return engine.sessions.get(session_id).channel
    except NotFound:  # priced directly, for a conversation that is kept elsewhere
        return None


def _changed(context: TaskContext, named: QuoteNamed, action: QuoteAction) -> dict[str, Any]:
    try:
        return quote_document(stores_of(context.engine).quotes.change(named.quote_id, action))
    except QuoteNotFound:
        raise _not_found() from None
    except QuoteClosed as closed:
        raise TaskError(
            "quote_closed", "The customer can no longer answer it.", standing=closed.standing
        ) from None


def _not_found() -> TaskError:
    return TaskError("quote_not_found", "There is no such quote.")


agent.handles("answer_product_question", needs=["product_knowledge"])(answer_product_question)

# Reading tells what has expired at any time; this is for lists and counts.
agent.every(60, "expire_quotes")
