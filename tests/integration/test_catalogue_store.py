"""Versions of the catalogue: made once, seen by all, never turned back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from threading import Barrier
from typing import Any, TypeVar

import pytest
from pymongo.database import Database

from agents.catalogue import (
    Catalogue,
    CatalogueInvalid,
    CatalogueNotFound,
    CatalogueStore,
    changes,
    load_catalogue,
)

SHIPPED = load_catalogue()

T = TypeVar("T")


def with_base_price(price: str) -> Catalogue:
    isodec = replace(SHIPPED.products[0], base_price_per_m2=Decimal(price))
    return replace(SHIPPED, products=(isodec, *SHIPPED.products[1:]))


def versions(database: Database[dict[str, Any]]) -> list[int]:
    return sorted(document["_id"] for document in database["catalogues"].find({}, {"_id": 1}))


def at_once(count: int, call: Callable[[int], T]) -> list[T]:
    """The results of `count` calls that all start together."""
    start = Barrier(count)

    def run(number: int) -> T:
        start.wait(timeout=30)
        return call(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


# --- Seeding ------------------------------------------------------------------------------


def test_before_seeding_there_is_no_catalogue(database: Database[dict[str, Any]]) -> None:
    with pytest.raises(CatalogueNotFound) as missing:
        CatalogueStore(database).current()
    assert missing.value.version is None


def test_the_seed_is_version_1_and_comes_back_whole(database: Database[dict[str, Any]]) -> None:
    assert CatalogueStore(database).seed(SHIPPED) == 1
    current = CatalogueStore(database).current()
    assert current == SHIPPED
    assert current.version == 1
    assert str(current.colours[1].factor) == "1.05"


def test_a_second_seed_changes_nothing(database: Database[dict[str, Any]]) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    assert store.seed(with_base_price("999")) == 1
    store.publish(with_base_price("160"), "import-1")
    assert store.seed(with_base_price("999")) == 2
    assert store.current() == with_base_price("160")
    assert versions(database) == [1, 2]


def test_many_processes_may_seed_at_once(database: Database[dict[str, Any]]) -> None:
    seeded = at_once(8, lambda number: CatalogueStore(database).seed(SHIPPED))
    assert seeded == [1] * 8
    assert versions(database) == [1]
    assert CatalogueStore(database).current().version == 1


def test_a_seed_that_died_before_the_pointer_is_taken_up(
    database: Database[dict[str, Any]],
) -> None:
    CatalogueStore(database).seed(SHIPPED)
    database["catalogue_current"].delete_one({"_id": "current"})
    assert CatalogueStore(database).seed(with_base_price("999")) == 1
    assert CatalogueStore(database).current() == SHIPPED


# --- Publishing ---------------------------------------------------------------------------


def test_a_published_catalogue_is_current_for_every_process(
    database: Database[dict[str, Any]],
) -> None:
    store, other_process = CatalogueStore(database), CatalogueStore(database)
    store.seed(SHIPPED)
    assert other_process.current().version == 1
    assert store.publish(with_base_price("160"), "import-1") == 2
    assert other_process.current().version == 2
    assert [each.field for each in changes(SHIPPED, other_process.current()).fields] == [
        "products.isodec.base_price_per_m2"
    ]


def test_quotes_keep_their_version(database: Database[dict[str, Any]]) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    store.publish(with_base_price("160"), "import-1")
    assert CatalogueStore(database).version(1) == SHIPPED
    assert store.version(1).version == 1
    with pytest.raises(CatalogueNotFound) as missing:
        store.version(3)
    assert missing.value.version == 3


def test_an_import_that_runs_twice_makes_one_version(database: Database[dict[str, Any]]) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    assert store.publish(with_base_price("160"), "import-1") == 2
    assert store.publish(with_base_price("170"), "import-2") == 3
    assert CatalogueStore(database).publish(with_base_price("160"), "import-1") == 2
    assert store.current().version == 3
    assert versions(database) == [1, 2, 3]


def test_one_import_run_by_many_at_once_makes_one_version(
    database: Database[dict[str, Any]],
) -> None:
    CatalogueStore(database).seed(SHIPPED)
    published = at_once(
        8, lambda number: CatalogueStore(database).publish(with_base_price("160"), "import-1")
    )
    assert published == [2] * 8
    assert versions(database) == [1, 2]


def test_many_imports_at_once_all_get_versions_and_the_highest_is_current(
    database: Database[dict[str, Any]],
) -> None:
    CatalogueStore(database).seed(SHIPPED)
    published = at_once(
        8,
        lambda number: CatalogueStore(database).publish(
            with_base_price(str(200 + number)), f"import-{number}"
        ),
    )
    assert sorted(published) == versions(database)[1:] == list(range(2, 10))
    store = CatalogueStore(database)
    assert store.current().version == 9
    for number, version in enumerate(published):
        assert store.version(version) == with_base_price(str(200 + number))


def test_publishing_without_a_seed_starts_at_version_1(database: Database[dict[str, Any]]) -> None:
    published = at_once(
        4, lambda number: CatalogueStore(database).publish(SHIPPED, f"import-{number}")
    )
    assert sorted(published) == [1, 2, 3, 4]
    assert CatalogueStore(database).current().version == 4


def test_an_import_that_died_before_the_pointer_is_finished_by_its_second_run(
    database: Database[dict[str, Any]],
) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    store.publish(with_base_price("160"), "import-1")
    database["catalogue_current"].update_one({"_id": "current"}, {"$set": {"version": 1}})
    assert store.current() == SHIPPED

    assert CatalogueStore(database).publish(with_base_price("160"), "import-1") == 2
    assert store.current() == with_base_price("160")


def test_a_number_taken_by_an_import_that_died_is_passed_over(
    database: Database[dict[str, Any]],
) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    store.publish(with_base_price("160"), "import-1")
    database["catalogue_current"].update_one({"_id": "current"}, {"$set": {"version": 1}})

    assert store.publish(with_base_price("170"), "import-2") == 3
    assert store.publish(with_base_price("160"), "import-1") == 2
    assert store.current() == with_base_price("170")


def test_a_catalogue_put_together_wrongly_is_not_stored(
    database: Database[dict[str, Any]],
) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    with pytest.raises(CatalogueInvalid, match=r"import-1: products\[0\]\.base_price_per_m2"):
        store.publish(with_base_price("0"), "import-1")
    assert versions(database) == [1]


# --- Reading ------------------------------------------------------------------------------


def test_the_current_catalogue_is_parsed_once_for_a_version(
    database: Database[dict[str, Any]],
) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    first = store.current()
    assert store.current() is first
    store.publish(with_base_price("160"), "import-1")
    assert store.current() is store.version(2) is not first
    assert store.version(1) is first


def test_documents_hold_numbers_as_they_were_written(database: Database[dict[str, Any]]) -> None:
    store = CatalogueStore(database)
    store.publish(with_base_price("160.10"), "import-1")
    document = database["catalogues"].find_one({"_id": 1})
    assert document is not None
    assert document["source_key"] == "import-1"
    assert isinstance(document["published_at"], datetime)
    assert document["catalogue"]["products"][0]["base_price_per_m2"] == "160.10"


def test_the_index_does_not_change_an_answer(database: Database[dict[str, Any]]) -> None:
    store = CatalogueStore(database)
    store.seed(SHIPPED)
    keys = ["seed", "import-1", "import-10", "import-2", "none"]
    for key in keys[1:-1]:
        store.publish(SHIPPED, key)

    def answers() -> list[Any]:
        return [database["catalogues"].find_one({"source_key": key}, {"_id": 1}) for key in keys]

    with_index = answers()
    database["catalogues"].drop_index("source_key_1")
    assert answers() == with_index == [{"_id": 1}, {"_id": 2}, {"_id": 3}, {"_id": 4}, None]


def test_a_catalogue_of_thousands_of_products_fits(database: Database[dict[str, Any]]) -> None:
    document = SHIPPED.to_document()
    isodec = document["products"][0]
    document["products"] = [
        {**isodec, "id": f"p_{n}", "name": {"es": f"p {n}", "en": f"p {n}"}, "aliases": [f"q {n}"]}
        for n in range(5000)
    ]
    store = CatalogueStore(database)
    store.publish(Catalogue.from_document(document), "import-1")
    assert len(CatalogueStore(database).current().products) == 5000
