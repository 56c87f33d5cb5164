"""A conversation with the pure parts and the real prices: what a test says, and what comes back."""

import json
from decimal import Decimal
from typing import Any

from agents.catalogue import load_catalogue
from agents.conversation.dialogue import State, Turn, present_quote, quote_refused, reply
from agents.conversation.meaning import Understanding
from agents.conversation.understanding import understand
from agents.quote.pricing import PriceRequest, PricingRefused, price_quote

CATALOGUE = load_catalogue()


def price_request(item: dict[str, Any]) -> PriceRequest:
    """A requested item, as the quote agent reads it."""
    sizes = {name: item.get(name) for name in ("length_m", "width_m", "area_m2")}
    return PriceRequest(
        product=item["product"],
        thickness_mm=int(item["thickness_mm"]),
        **{name: None if size is None else Decimal(size) for name, size in sizes.items()},
        quantity=item.get("quantity", 1),
        colour=item.get("colour"),
        finishes=tuple(name for name, sides in item.get("finishes", ()) for _ in range(sides)),
        anchors=item.get("anchors"),
        freight=item.get("freight"),
    )


class Chat:
    """A conversation with a quote agent at the other end; remembers every turn."""

    def __init__(self) -> None:
        self.state = State()
        self.turns: list[Turn] = []
        self.totals: list[str | None] = []
        self.superseded: list[str | None] = []
        self.requested: tuple[dict[str, Any], ...] = ()

    def say(self, text: str) -> Turn:
        self.understood: Understanding = understand(text, CATALOGUE, self.state.hint())
        turn = reply(self.state, self.understood, CATALOGUE)
        total = None
        self.superseded.append(turn.quote_id if turn.action == "request_quote" else None)
        if turn.action == "request_quote":
            assert turn.text == ""
            self.requested = json.loads(json.dumps(turn.items))
            try:
                quote = self._quote()
            except PricingRefused as refused:
                problems = [each.to_document() for each in refused.problems]
                turn = quote_refused(turn.state, problems, CATALOGUE)
            else:
                total = quote["total"]
                turn = present_quote(turn.state, quote)
        assert turn.text.strip()
        self.state = State.from_document(json.loads(json.dumps(turn.state.to_document())))
        assert self.state == turn.state
        self.turns.append(turn)
        self.totals.append(total)
        return turn

    def _quote(self) -> dict[str, Any]:
        priced = price_quote(CATALOGUE, [price_request(item) for item in self.requested])
        document = priced.to_document()
        for item in document["items"]:
            item["description"] = f"{item['product']} {item['thickness_mm']} mm"
        units = {item["unit_price_per_m2"] for item in document["items"]}
        return document | {
            "quote_id": f"quote-{len(self.totals)}",
            "code": f"COT-2026-{len(self.totals):06d}",
            "description": "; ".join(item["description"] for item in document["items"]),
            "unit_price_per_m2": units.pop() if len(units) == 1 else None,
            "valid_until": "2026-12-08T12:00:00+00:00",
        }


def chat(*messages: str) -> Chat:
    talk = Chat()
    for message in messages:
        talk.say(message)
    return talk
