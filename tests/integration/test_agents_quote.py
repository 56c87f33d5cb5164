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


def test_of_the_versions_of_a_quote_the_last_is_summed(engine: Engine) -> None:
    store = QuoteStore(engine.database, engine.clock)
    store.ensure_indexes()
    store.store_once(new_quote("first", session=None))
    dearer = replace(new_quote("second", session=None), total=Decimal("0.30"), supersedes="first")
    store.store_once(dearer)
    store.store_once(new_quote("other", session=None))
    now = engine.clock.now()
    (drafts,) = store.sums(now - timedelta(hours=1), now + timedelta(hours=1))
    assert (drafts.count, drafts.total) == (2, Decimal("0.40"))


def new_quote(quote_id: str, session: str | None) -> NewQuote:
    return NewQuote(
        id=quote_id,
        session=session,
        customer_name=None,
        customer_phone=None,
        language="es",
        product="",
        description="",
        items=(),
        total=Decimal("0.10"),
        tax=Decimal("0.02"),
        tax_rate=Decimal("0.22"),
        currency="UYU",
        validity_days=15,
        catalogue_version=1,
    )


# --- Versions and states ------------------------------------------------------------------


def test_a_correction_is_the_next_version_and_the_old_one_cannot_be_accepted(desk: Any) -> None:
    first = desk.ask("create_quote", {"items": [ISODEC]})
    thicker = [ISODEC | {"thickness_mm": 150}]
    task = desk.accept("create_quote", {"items": thicker, "supersedes": first["quote_id"]})
    second = desk.run(task)
    assert second["code"] == f"{first['code']}-2"
    assert (second["number"], second["version"]) == (first["number"], 2)
    assert second["supersedes"] == first["quote_id"]
    assert desk.run(task) == second
    third = desk.ask("create_quote", {"items": thicker, "supersedes": second["quote_id"]})
    assert third["code"] == f"{first['code']}-3"
    for old in (first, second):
        with pytest.raises(TaskError) as closed:
            desk.ask("accept_quote", {"quote_id": old["quote_id"]})
        assert (closed.value.task_code, closed.value.facts) == (
            "quote_closed",
            {"standing": "superseded"},
        )
    assert desk.ask("accept_quote", {"quote_id": third["quote_id"]})["state"] == "accepted"


def test_of_corrections_made_at_once_the_newest_alone_can_be_accepted(desk: Any) -> None:
    first = desk.ask("create_quote", {"items": [ISODEC]})
    wanted = {"items": [ISODEC], "supersedes": first["quote_id"]}
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: desk.ask("create_quote", wanted), range(6)))
    assert sorted(quote["version"] for quote in made) == [2, 3, 4, 5, 6, 7]
    left = [quote for quote in stored(desk) if quote["superseded_by"] is None]
    assert [quote["version"] for quote in left] == [7]


def test_who_corrects_while_the_customer_accepts_gets_one_of_both(desk: Any) -> None:
    """Either the acceptance came first, or it is refused: never after the correction."""
    for _ in range(5):
        first = desk.ask("create_quote", {"items": [ISODEC]})
        start = Barrier(2)

        def correct(quote_id: str = first["quote_id"], start: Barrier = start) -> str:
            start.wait(timeout=30)
            desk.ask("create_quote", {"items": [ISODEC], "supersedes": quote_id})
            return "corrected"

        def accept(quote_id: str = first["quote_id"], start: Barrier = start) -> str:
            start.wait(timeout=30)
            try:
                return str(desk.ask("accept_quote", {"quote_id": quote_id})["state"])
            except TaskError as error:
                return str(error.facts["standing"])

        with ThreadPoolExecutor(2) as threads:
            accepted = threads.submit(accept)
            threads.submit(correct).result()
        kept = desk.engine.database["quotes"].find_one({"_id": first["quote_id"]})
        assert kept["superseded_by"] is not None
        assert (accepted.result() == "accepted") == (kept["state"] == "accepted")
        assert accepted.result() in ("accepted", "superseded")


def test_a_decision_is_made_once_and_stands(desk: Any) -> None:
    quote = desk.ask("create_quote", {"items": [ISODEC]})
    named = {"quote_id": quote["quote_id"]}

    def decide(task_type: str) -> str:
        try:
            return str(desk.ask(task_type, named)["state"])
        except TaskError as error:
            return f"no, {error.facts['standing']}"

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(decide, ["accept_quote", "reject_quote"] * 4))
    decided = stored(desk)[0]["state"]
    assert set(told) == {decided, f"no, {decided}"}
    assert [each["state"] for each in stored(desk)[0]["history"]] == ["draft", decided]


def test_a_quote_whose_time_is_over_is_expired_at_once_and_marked_later(desk: Any) -> None:
    quote = desk.ask("create_quote", {"items": [ISODEC]})
    kept = desk.ask("create_quote", {"items": [ISODEC]})
    past = desk.engine.clock.now() - timedelta(seconds=1)
    quotes = desk.engine.database["quotes"]
    quotes.update_one({"_id": quote["quote_id"]}, {"$set": {"valid_until": past}})
    assert stores_of(desk.engine).quotes.get(quote["quote_id"]).state == "expired"
    assert desk.engine.resources.get("quotes", quote["quote_id"])["state"] == "expired"
    for state, ids in (("expired", [quote["quote_id"]]), ("draft", [kept["quote_id"]])):
        found, _ = desk.engine.resources.page("quotes", {"state": state}, 10)
        assert [each["id"] for each in found] == ids
    with pytest.raises(TaskError) as closed:
        desk.ask("accept_quote", {"quote_id": quote["quote_id"]})
    assert closed.value.facts == {"standing": "expired"}
    assert desk.ask("expire_quotes") == {"expired": 1}
    assert desk.ask("expire_quotes") == {"expired": 0}
    assert quotes.find_one({"_id": quote["quote_id"]})["state"] == "expired"


def test_what_there_is_not_is_not_found(desk: Any) -> None:
    for task_type in ("accept_quote", "reject_quote", "render_quote"):
        with pytest.raises(TaskError) as missing:
            desk.ask(task_type, {"quote_id": "none"})
        assert missing.value.task_code == "quote_not_found"


def test_a_pdf_is_kept_once_for_each_edition(desk: Any) -> None:
    quote = desk.ask("create_quote", {"items": [ISODEC]})
    named = {"quote_id": quote["quote_id"]}
    first = desk.ask("render_quote", named)
    assert desk.ask("render_quote", named) == first
    kept = desk.engine.files.get(first["file_id"])
    assert kept.content.startswith(b"%PDF-")
    assert kept.name == f"{quote['code']}.pdf"
    pdfs = {"content_type": "application/pdf"}
    assert desk.engine.database["files"].count_documents(pdfs) == 1
    stores_of(desk.engine).quotes.name_customer(quote["quote_id"], "Ana")
    assert desk.ask("render_quote", named)["file_id"] != first["file_id"]
