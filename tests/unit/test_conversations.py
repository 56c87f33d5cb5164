"""Conversations as customers have them, held against what they should come to.

They are in `tests/conversations/*.yaml`, in the customers' own words. Each turn tells what has
to be understood (`means`), and the quote that is due at that turn, as

    quote: isodec 100 10x5 gris gotero*2 -flete = 7087.50

for one thing or, with ` + `, for several: product, thickness in mm, size (`10x5`, `3*2x1`,
`50m2`), and what differs from the catalogue's defaults. The total is written down, and worked
out here once more from the price table of the business, which this file states by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.conversation.meaning import SURE, Item, Understanding
from tests.talk import Chat

FOLDER = Path(__file__).parents[1] / "conversations"

BASE = {"isodec": Decimal(150), "eps": Decimal(120), "lana": Decimal(140)}
THICKNESS = {
    25: Decimal("0.7"),
    50: Decimal("0.8"),
    75: Decimal("0.9"),
    100: Decimal(1),
    125: Decimal("1.1"),
    150: Decimal("1.2"),
}
COLOUR = {"blanco": Decimal(1), "gris": Decimal("1.05"), "personalizado": Decimal("1.15")}
PER_SIDE = {"gotero": Decimal("0.05"), "hormigon": Decimal("0.10")}
WITHOUT = {"-anclajes": Decimal("0.95"), "-flete": Decimal("0.90")}
PRODUCTS = {"poliestireno": "eps", "lana_roca": "lana"}


def total_of(things: str) -> Decimal:
    """By the price table: base x thickness x colour x finishes x anchors x freight x area."""
    total = Decimal(0)
    for thing in things.split(" + "):
        product, thickness, size, *others = thing.split()
        unit = BASE[product] * THICKNESS[int(thickness)]
        count, _, sides = size.rpartition("*")
        finishes = Decimal(1)
        for other in others:
            finish, _, number = other.partition("*")
            if number:
                finishes += PER_SIDE[finish] * int(number)
            else:
                unit *= COLOUR[other] if other in COLOUR else WITHOUT[other]
        if sides.endswith("m2"):
            area = Decimal(sides.removesuffix("m2"))
        else:
            length, width = sides.split("x")
            area = Decimal(length) * Decimal(width)
        area *= int(count or 1)
        total += (unit * finishes * area).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return total


@dataclass(frozen=True)
class Due:
    """What a turn should come to."""

    says: str
    means: str
    quote: str | None
    total: Decimal | None
    then: str | None


@dataclass(frozen=True)
class Conversation:
    name: str
    turns: tuple[Due, ...]


def corpus() -> Iterator[Conversation]:
    for path in sorted(FOLDER.glob("*.yaml")):
        conversations = yaml.safe_load(path.read_text(encoding="utf-8"))
        for number, turns in enumerate(conversations, 1):
            yield Conversation(f"{path.stem}-{number}", tuple(map(due, turns)))


def due(turn: dict[str, Any]) -> Due:
    assert turn.keys() <= {"says", "times", "means", "quote", "then"}, turn
    things, _, total = turn.get("quote", "").partition(" = ")
    return Due(
        says=turn["says"] * turn.get("times", 1),
        means=turn["means"],
        quote=things or None,
        total=Decimal(total) if total else None,
        then=turn.get("then"),
    )


def shown(item: Item) -> str:
    """An item in the corpus's way of writing; "?" for what was not said of a size."""
    words = []
    if item.product:
        words.append(PRODUCTS.get(item.product, item.product))
    if item.thickness_mm is not None:
        words.append(f"{item.thickness_mm:f}")
    count = f"{item.quantity}*" if item.quantity is not None else ""
    if item.area_m2 is not None:
        words.append(f"{count}{item.area_m2:f}m2")
    elif item.length_m is not None or item.width_m is not None or count:
        sides = ["?" if side is None else f"{side:f}" for side in (item.length_m, item.width_m)]
        words.append(count + "x".join(sides))
    if item.colour:
        words.append(item.colour)
    words += (f"{finish}*{sides}" for finish, sides in item.finishes or ())
    for name, included in (("anclajes", item.anchors), ("flete", item.freight)):
        if included is not None:
            words.append(f"{'+' if included else '-'}{name}")
    return " ".join(words)


def meaning(said: Understanding) -> str:
    """An understanding in one line: intents; things; what is unclear, unknown, asked, told."""
    intents = sorted(each.name for each in said.intents if each.confidence >= SURE)
    parts = [", ".join(intents) or "-", " + ".join(filter(None, map(shown, said.items)))]
    for unclear in said.unclear:
        options = " | ".join(map(shown, unclear.options))
        parts.append(f"{unclear.field}? {options}".strip())
    parts += (f"no {each.field}: {each.said}" for each in said.unknown)
    if said.topics:
        about = [PRODUCTS.get(each, each) for each in said.about]
        about += (f"{each:f}" for each in said.about_thicknesses_mm)
        parts.append(" ".join(["asks", ", ".join(said.topics), *(["of", *about] if about else [])]))
    if said.choice is not None:
        parts.append(f"choice {said.choice + 1}")
    if said.removed:
        parts.append("without " + ", ".join(PRODUCTS.get(each, each) for each in said.removed))
    parts += (f"without {shown(each)}" for each in said.unwanted)
    parts += (f"{side} {metres:+f}" for side, metres in said.longer)
    if said.name:
        parts.append(f"name {said.name}")
    parts += (f"phone {each}" for each in said.phones)
    return "; ".join(filter(None, parts))


CORPUS = list(corpus())


@dataclass(frozen=True)
class Outcome:
    right: int
    due: int
    wrong: list[str]
    missed: list[str]


def held(conversation: Conversation) -> Outcome:
    talk = Chat()
    right = expected = 0
    wrong: list[str] = []
    missed: list[str] = []
    for number, turn in enumerate(conversation.turns, 1):
        talk.say(turn.says)
        total = talk.totals[-1]
        report = f"{conversation.name}, turn {number} {turn.says[:80]!r}: {total}, due {turn.total}"
        expected += turn.total is not None
        if total is not None and Decimal(total) != turn.total:
            wrong.append(report)
        elif total is None and turn.total is not None:
            missed.append(f"{report}: {talk.turns[-1].text[:200]}")
        else:
            right += total is not None
    return Outcome(right, expected, wrong, missed)


def test_the_corpus_is_large_and_its_totals_are_those_of_the_price_table() -> None:
    assert len(CORPUS) >= 150
    assert len({turn.says for each in CORPUS for turn in each.turns}) >= 300
    for conversation in CORPUS:
        for turn in conversation.turns:
            if turn.quote is not None:
                assert turn.total == total_of(turn.quote), (conversation.name, turn.quote)


@pytest.mark.parametrize(
    ("things", "total"),
    [
        ("isodec 100 3.33x2.17 gris", "1138.11"),
        ("isodec 100 10x5 gotero*4", "9000.00"),
        ("isodec 100 10x5 -anclajes -flete", "6412.50"),
        ("isodec 125 6.5x4", "4290.00"),
        ("eps 75 8x4", "3456.00"),
        ("lana 50 9x7 + isodec 50 10x5", "13056.00"),
    ],
)
def test_the_price_table_of_this_file_is_that_of_the_business(things: str, total: str) -> None:
    assert total_of(things) == Decimal(total)


def test_quotes_come_at_the_right_turn_with_the_right_total() -> None:
    outcomes = [held(conversation) for conversation in CORPUS]
    wrong = [line for outcome in outcomes for line in outcome.wrong]
    missed = [line for outcome in outcomes for line in outcome.missed]
    right, expected = sum(o.right for o in outcomes), sum(o.due for o in outcomes)
    assert not wrong, "\n".join(wrong)
    assert right >= 0.95 * expected, f"{right} of {expected}\n" + "\n".join(missed)


@pytest.mark.parametrize("conversation", CORPUS, ids=lambda conversation: conversation.name)
def test_a_conversation(conversation: Conversation) -> None:
    """Each by itself: what was understood, the quotes, and what follows from a turn."""
    talk = Chat()
    for turn in conversation.turns:
        answer = talk.say(turn.says)
        things = " + ".join(shown(Item.from_document(each)) for each in talk.requested)
        told = f"{turn.says[:80]!r} -> {things} {answer.text[:300]}"
        assert meaning(talk.understood) == turn.means, told
        assert (talk.totals[-1] and Decimal(talk.totals[-1])) == turn.total, told
        settled = {"accept_quote": "accepts", "reject_quote": "rejects"}.get(answer.action)
        then = ", ".join([*answer.effects, *([settled] if settled else [])]) or None
        assert then == turn.then, told
        assert re.search(r"[{}]", answer.text) is None, told
