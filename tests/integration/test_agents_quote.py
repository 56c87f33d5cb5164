"""The quote agent: a price by the catalogue in force, kept once whatever is retried."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest

from agents.catalogue import load_catalogue
from agents.quote.agent import agent
from agents.quotes import NewQuote, QuoteStore
from agents.stores import stores_of
from orchestrator.engine import Engine
from orchestrator.errors import InvalidPayload, TaskError

ISODEC = {"product": "isodac", "thickness_mm": "100", "length_m": "10", "width_m": "5"}


@pytest.fixture
def desk(desk_of: Callable[..., Any]) -> Any:
    return desk_of(agent)


def stored(desk: Any) -> list[dict[str, Any]]:
    return list(desk.engine.database["quotes"].find())


@pytest.mark.parametrize(
    ("item", "total", "unit"),
    [
        (ISODEC, "7500.00", "150"),
        (ISODEC | {"length_m": 3.33, "width_m": 2.17, "colour": "grey"}, "1138.11", "157.5"),
        (
            ISODEC | {"anchors": False, "freight": False, "finishes": []},
            "6412.50",
            "128.25",
        ),
        (ISODEC | {"finishes": [["gotero", 4]]}, "9000.00", "180"),
        (
            {"product": "lana de roca", "thickness_mm": 50, "area_m2": "63"},
            "7056.00",
            "112",
        ),
    ],
)
def test_a_quote_has_the_price_of_the_catalogue(
    desk: Any, item: dict[str, Any], total: str, unit: str
) -> None:
    quote = desk.ask("create_quote", {"items": [item]})
    assert (quote["total"], quote["unit_price_per_m2"]) == (total, unit)


def test_a_quote_carries_what_its_reply_needs(desk: Any) -> None:
    task = desk.accept(
        "create_quote",
        {
            "session_id": "s1",
            "customer": {"name": "Ana", "phone": "+59899123456"},
            "language": "en",
            "items": [ISODEC, {"product": "eps", "thickness_mm": 75, "area_m2": "32"}],
        },
    )
    quote = desk.run(task)
    year = datetime.now(UTC).year
    assert quote["quote_id"] == task.id
    assert quote["code"] == f"COT-{year}-000001"
    assert quote["product"] == "Isodec, Expanded polystyrene"
    assert quote["description"] == (
        "Isodec 100 mm, 10 × 5 m, white; Expanded polystyrene 75 mm, 32 m², white"
    )
    assert [item["total"] for item in quote["items"]] == ["7500.00", "3456.00"]
    assert (quote["total"], quote["tax"], quote["tax_rate"]) == ("10956.00", "1975.67", "0.22")
    assert (quote["currency"], quote["unit_price_per_m2"]) == ("UYU", None)
    assert quote["catalogue_version"] == 1
    created, until = (datetime.fromisoformat(quote[key]) for key in ("created_at", "valid_until"))
    assert until - created == timedelta(days=15)
    (kept,) = stored(desk)
    assert kept["customer"] == {"name": "Ana", "phone": "+59899123456"}
    assert (kept["session"], kept["state"]) == ("s1", "draft")


def test_a_task_that_runs_again_finds_its_quote(desk: Any) -> None:
    task = desk.accept("create_quote", {"items": [ISODEC]})
    first = desk.run(task)
    # Prices that changed meanwhile change nothing.
    isodec = replace(load_catalogue().products[0], base_price_per_m2=Decimal(999))
    stores_of(desk.engine).catalogues.publish(
        replace(load_catalogue(), products=(isodec,)), "cheaper"
    )
    assert desk.run(task) == first
    assert len(stored(desk)) == 1
    assert desk.ask("create_quote", {"items": [ISODEC]})["catalogue_version"] == 2


def test_a_task_that_runs_many_times_at_once_makes_one_quote(desk: Any) -> None:
    task = desk.accept("create_quote", {"items": [ISODEC]})
    start = Barrier(8)

    def run(_: int) -> Any:
        start.wait(timeout=30)
        return desk.run(task)

    with ThreadPoolExecutor(8) as threads:
        quotes = list(threads.map(run, range(8)))
    assert quotes == [quotes[0]] * 8
    assert len(stored(desk)) == 1


def test_codes_differ_and_rise(desk: Any) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: desk.ask("create_quote", {"items": [ISODEC]}), range(24)))
    assert len({quote["code"] for quote in made}) == 24
    one_by_one = [desk.ask("create_quote", {"items": [ISODEC]})["code"] for _ in range(3)]
    assert all(before < after for before, after in pairwise(one_by_one))


def test_a_counter_that_was_set_back_holds_up_nobody(desk: Any) -> None:
    codes = [desk.ask("create_quote", {"items": [ISODEC]})["code"] for _ in range(3)]
    desk.engine.database["counters"].update_many({}, {"$set": {"n": 1}})
    code = desk.ask("create_quote", {"items": [ISODEC]})["code"]
    assert code not in codes
    assert code[-1] == "4"


def test_what_has_no_price_is_said_with_what_is_possible(desk: Any) -> None:
    wrong = ISODEC | {"thickness_mm": 60, "colour": "verde", "length_m": 0}
    with pytest.raises(TaskError) as refused:
        desk.ask("create_quote", {"items": [ISODEC, wrong]})
    assert refused.value.task_code == "quote_refused"
    problems = {each["field"]: each["allowed"] for each in refused.value.facts["problems"]}
    assert problems == {
        "items.1.thickness_mm": [50, 75, 100, 125, 150],
        "items.1.length_m": ["1000"],
        "items.1.colour": ["blanco", "gris", "personalizado"],
    }
    assert stored(desk) == []


def test_what_is_no_quote_request_is_not_accepted(desk: Any) -> None:
    with pytest.raises(InvalidPayload) as invalid:
        desk.accept("create_quote", {"items": [ISODEC | {"discount": 1}]})
    assert [error["pointer"] for error in invalid.value.facts["errors"]] == ["/items/0"]


def test_a_product_question_is_answered_from_the_catalogue(desk: Any) -> None:
    answer = desk.ask(
        "answer_product_question", {"question": "does it burn? fire!", "product": "rock wool",
                                    "language": "en"},
    )  # fmt: skip
    assert answer["products"] == ["lana_roca"]
    assert "non-combustible" in answer["text"]


# --- Queries ------------------------------------------------------------------------------


def test_queries_give_the_same_with_their_indexes_as_without(engine: Engine) -> None:
    now = engine.clock.now()
    store = QuoteStore(engine.database, engine.clock)
    for number in range(12):
        store.store_once(new_quote(str(number), session=f"s{number % 3}" if number % 4 else None))
    engine.database["quotes"].update_many({"_id": {"$in": ["1", "2"]}}, {"$set": {"state": "sent"}})

    def answers() -> Any:
        hour = timedelta(hours=1)
        return (
            store.newest_of(["s0", "s2", "nobody"]),
            store.sums(now - hour, now + hour),
            store.sums(now + hour, now + 2 * hour),
        )

    without = answers()
    store.ensure_indexes()
    assert answers() == without
    newest, sums, none = without
    assert {session: quote.id for session, quote in newest.items()} == {"s0": "9", "s2": "11"}
    assert [(each.state, each.count, each.total) for each in sums] == [
        ("draft", 10, Decimal("1.00")),
        ("sent", 2, Decimal("0.20")),
    ]
    assert none == []


def new_quote(quote_id: str, session: str | None) -> NewQuote:
    return NewQuote(
        id=quote_id,
        session=session,
        customer_name=None,
        customer_phone=None,
        language="es",
        items=(),
        total=Decimal("0.10"),
        tax=Decimal("0.02"),
        tax_rate=Decimal("0.22"),
        currency="UYU",
        validity_days=15,
        catalogue_version=1,
    )
