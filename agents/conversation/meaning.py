"""What a message can mean: the values that understanding gives and dialogue takes.

An item is a thing to be quoted as far as it is known; the same value stands for what one
message says of it and for what a conversation has gathered.
"""

from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, Literal

from agents.catalogue import Language

SURE: Final = 0.7  # an intent's confidence from which it can be acted on without asking

# "cantidad" is asked for where a size is said to be of each, "de_quien" where somebody else's
# wishes stand beside the customer's own.
Field = Literal[
    "de_quien", "producto", "espesor", "dimensiones", "cantidad", "color", "terminaciones", "nombre"
]


@dataclass(frozen=True)
class Item:
    """One thing that a customer wants quoted, as far as it has been said; None is unsaid.

    Ids are the catalogue's. Either the sides, for `quantity` pieces of that size, or the
    area. `finishes` gives the number of sides for each finish. `place` is what it is for
    ("techo"), to tell it from others by: no part of the order.
    """

    product: str | None = None
    thickness_mm: Decimal | None = None
    length_m: Decimal | None = None
    width_m: Decimal | None = None
    area_m2: Decimal | None = None
    quantity: int | None = None
    colour: str | None = None
    finishes: tuple[tuple[str, int], ...] | None = None
    anchors: bool | None = None
    freight: bool | None = None
    place: str | None = field(default=None, compare=False)

    @property
    def sized(self) -> bool:
        return self.area_m2 is not None or (self.length_m is not None and self.width_m is not None)

    def to_document(self) -> dict[str, Any]:
        """For JSON: what is unsaid is left out, Decimals are strings."""
        document: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Decimal):
                document[each.name] = format(value, "f")
            elif isinstance(value, tuple):
                document[each.name] = [list(pair) for pair in value]
            elif value is not None:
                document[each.name] = value
        return document

    @staticmethod
    def from_document(document: dict[str, Any]) -> "Item":
        known = {each.name for each in fields(Item)}
        values = {name: value for name, value in document.items() if name in known}
        for name in ("thickness_mm", "length_m", "width_m", "area_m2"):
            if values.get(name) is not None:
                values[name] = Decimal(values[name])
        if values.get("finishes") is not None:
            values["finishes"] = tuple((str(i), int(n)) for i, n in values["finishes"])
        return Item(**values)


@dataclass(frozen=True)
class Intent:
    """What the customer wants by the message, and how sure that is (0 to 1)."""

    name: str
    confidence: float


@dataclass(frozen=True)
class Unclear:
    """Something said about item number `item` of the message that can mean several things.

    Each option is an item with only what that reading would say. Without options it cannot
    be read as anything that could be offered: ask again.
    """

    field: Field
    options: tuple[Item, ...] = ()
    item: int = 0


@dataclass(frozen=True)
class Unknown:
    """Something asked for that the catalogue does not have; `said` is safe to repeat."""

    field: Field
    said: str
    item: int = 0


@dataclass(frozen=True)
class Hint:
    """What the conversation is about, for messages that make no sense without it.

    `asked`: the fields that were asked for last. `items` is what is known of the things to be
    quoted: "no son 10, son 12" is said of what is 10 there. `product` is that of the item asked
    about. `options`: the readings that were offered to choose from. `language`: of the
    conversation so far. `missing_side` is "length" or "width" where the other is known.
    """

    asked: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    product: str | None = None
    options: tuple[Item, ...] = ()
    language: Language = "es"
    missing_side: str | None = None

    @property
    def things(self) -> int:
        return len(self.items)

    @cached_property
    def products(self) -> tuple[str, ...]:
        """Of all the items, each once."""
        return tuple(dict.fromkeys(each.product for each in self.items if each.product))

    @property
    def pieces(self) -> int | None:
        """How many the only item is, where its sides are known."""
        only = self.items[0] if self.things == 1 else Item()
        return (only.quantity or 1) if only.length_m else None


@dataclass(frozen=True)
class Understanding:
    """What a message says.

    `intents` come surest first; several at once are usual. `items` are what is to be
    quoted, in the order said, each with what was said of it. `topics` are what is asked:
    ids of catalogue topics, or of the cues named ask_* without the prefix, `about` and
    `about_thicknesses_mm` what that is asked of. `choice` is which of the hint's options
    the message chose. `added`: the items come on top of those before; `removed`: products
    that are no longer wanted. `of_all`: it is said of all the items ("todo en gris").
    `unwanted`: what tells the things that are no longer wanted ("el de 4x3 no"). `longer`: by
    how many metres a side, "length_m" or "width_m", is to be longer. `places`: how many roofs
    or walls it is, where no size is said; `each`: the size is that of each.
    `both_ways`: "anchors" or "freight", asked for with and without. `which`: the number of the
    hint's item that this is said of ("el segundo en gris"). `others`: the numbers of the items
    that somebody else wants ("mi vecino quiere 20 m2 y yo 10x5"); `only_own`: they are not to be
    quoted, or, False, they are.
    """

    language: Language
    intents: tuple[Intent, ...] = ()
    items: tuple[Item, ...] = ()
    unclear: tuple[Unclear, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    topics: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    about_thicknesses_mm: tuple[Decimal, ...] = ()
    choice: int | None = None
    name: str | None = None
    phones: tuple[str, ...] = ()
    added: bool = False
    removed: tuple[str, ...] = ()
    of_all: bool = False
    unwanted: tuple[Item, ...] = ()
    longer: tuple[tuple[str, Decimal], ...] = ()
    places: int | None = None
    each: bool = False
    both_ways: tuple[str, ...] = ()
    which: int | None = None
    others: tuple[int, ...] = ()
    only_own: bool | None = None

    def wants(self, *names: str) -> bool:
        """Whether the message has any of these intents."""
        return any(intent.name in names for intent in self.intents)

    def sure_of(self, *names: str) -> bool:
        """Whether the message has any of these intents for sure: not by a word in passing."""
        return any(intent.name in names and intent.confidence >= SURE for intent in self.intents)

    @property
    def confidence(self) -> float:
        return self.intents[0].confidence if self.intents else 0.0
