"""Rows of a file: the right ones go in, the wrong ones are named, and none holds up another."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.catalogue import Product, changes, load_catalogue
from agents.data_sync.rows import Applied, FileUnreadable, apply_rows, read_rows

SHIPPED = load_catalogue()
NEW = {
    "id": "pir",
    "name": {"es": "PIR", "en": "PIR"},
    "thicknesses_mm": [50, 100],
    "base_price_per_m2": 199.90,
    "description": {"es": "Espuma rígida.", "en": "Rigid foam."},
}


def from_csv(*lines: str) -> Applied:
    return apply_rows(SHIPPED, read_rows("\n".join(lines), "csv"))


def from_json(*products: object) -> Applied:
    return apply_rows(SHIPPED, read_rows(json.dumps(products), "json"))


def product_of(applied: Applied, product_id: str) -> Product:
    return next(each for each in applied.catalogue.products if each.id == product_id)


def places(applied: Applied) -> list[tuple[int, str]]:
    return [(cell.row, cell.column) for cell in applied.wrong]


# --- What goes in -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ("id,base_price_per_m2", "isodec,160.50"),
        ("id;base_price_per_m2", "isodec;160.50"),
        ("BASE_PRICE_PER_M2\tid", "160.50\tisodec", "", "\t"),
        ("\ufeffid,base_price_per_m2\r", "isodec,160.50\r"),
    ],
)
def test_a_price_is_changed_and_all_else_stays(lines: tuple[str, ...]) -> None:
    applied = from_csv(*lines)
    assert applied.wrong == ()
    changed = changes(SHIPPED, applied.catalogue)
    assert [(each.field, each.new) for each in changed.fields] == [
        ("products.isodec.base_price_per_m2", Decimal("160.50"))
    ]


def test_a_new_product_comes_last_and_an_old_one_keeps_its_place() -> None:
    applied = from_json(NEW, {"id": "isodec", "base_price_per_m2": 160})
    assert [product.id for product in applied.catalogue.products] == [
        "isodec",
        "poliestireno",
        "lana_roca",
        "pir",
    ]
    # A JSON number keeps the digits that were written.
    assert str(product_of(applied, "pir").base_price_per_m2) == "199.9"


def test_a_new_product_in_csv() -> None:
    applied = from_csv(
        "id,name_es,name_en,aliases,thicknesses_mm,base_price_per_m2,description_es,description_en",
        'pir,PIR,PIR board,poliiso | "foam", 50|100 ,199.90,"Espuma\nrígida.",Rigid foam.',
    )
    assert applied.wrong == ()
    pir = product_of(applied, "pir")
    assert pir.aliases == ("poliiso", '"foam"')
    assert pir.thicknesses_mm == (50, 100)
    assert pir.description.es == "Espuma\nrígida."


def test_a_text_is_changed_in_one_language() -> None:
    applied = from_csv("id,name_en", "isodec,Isodec roof panel")
    name = product_of(applied, "isodec").name
    assert (name.es, name.en) == ("Isodec", "Isodec roof panel")


def test_rows_put_in_twice_change_nothing_more() -> None:
    rows = read_rows(json.dumps([NEW, {"id": "isodec", "base_price_per_m2": "1"}]), "json")
    once = apply_rows(SHIPPED, rows)
    assert apply_rows(once.catalogue, rows) == once


# --- What does not ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"id": "Has Spaces"}, "id"),
        ({"id": 7}, "id"),
        ({"name": {"es": "PIR", "en": "?!"}}, "name.en"),
        ({"name": {"es": "PIR"}}, "name.en"),
        # Another product's name, in another spelling.
        ({"aliases": ["ISODÉC"]}, "aliases"),
        ({"aliases": "foam"}, "aliases"),
        ({"thicknesses_mm": [60]}, "thicknesses_mm"),
        ({"thicknesses_mm": [50, 50]}, "thicknesses_mm"),
        ({"thicknesses_mm": []}, "thicknesses_mm"),
        ({"base_price_per_m2": -17}, "base_price_per_m2"),
        ({"base_price_per_m2": "1,250"}, "base_price_per_m2"),
        ({"base_price_per_m2": None}, "base_price_per_m2"),
        ({"description": {"es": "x" * 2001, "en": "x"}}, "description.es"),
        ({"facts": {"taste": {"es": "x", "en": "x"}}}, "facts.taste"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_row_is_named_without_its_value_and_the_next_one_goes_in(
    change: dict[str, Any], column: str
) -> None:
    applied = from_json(NEW | change, {"id": "isodec", "base_price_per_m2": 160})
    assert places(applied) == [(1, column)]
    assert str(next(iter(change.values()))) not in applied.wrong[0].reason
    assert changes(SHIPPED, applied.catalogue).products_added == ()
    assert product_of(applied, "isodec").base_price_per_m2 == 160


def test_a_product_that_comes_twice_goes_in_as_it_came_first() -> None:
    applied = from_csv("id,base_price_per_m2", "isodec,160", "isodec,170")
    assert places(applied) == [(3, "id")]
    assert product_of(applied, "isodec").base_price_per_m2 == 160


def test_a_new_product_that_lacks_something_is_told_all_that_it_lacks() -> None:
    applied = from_csv("id,name_es", "pir,PIR")
    assert {cell.column: cell.reason for cell in applied.wrong} == {
        "name.en": "is missing",
        "thicknesses_mm": "is missing",
        "base_price_per_m2": "is missing",
        "description": "is missing",
    }


def test_of_two_rows_that_claim_one_name_the_later_is_wrong() -> None:
    other = NEW | {"id": "pur", "name": {"es": "PUR", "en": "pir"}}
    applied = from_json(NEW, other)
    assert places(applied) == [(2, "name.en")]
    assert changes(SHIPPED, applied.catalogue).products_added == ("pir",)


def test_a_row_may_not_take_the_name_of_a_product_that_another_row_only_reprices() -> None:
    applied = from_json(NEW | {"aliases": ["isodac"]}, {"id": "isodec", "base_price_per_m2": 160})
    assert places(applied) == [(1, "aliases")]
    assert product_of(applied, "isodec").base_price_per_m2 == 160


def test_a_name_that_one_row_gives_away_another_may_take() -> None:
    renamed = {"id": "isodec", "aliases": []}
    applied = from_json(NEW | {"aliases": ["isodac"]}, renamed)
    assert applied.wrong == ()
    assert applied.catalogue.product("isodac") == product_of(applied, "pir")


def test_a_row_that_takes_a_name_whose_owner_keeps_it_after_all_is_wrong_too() -> None:
    # isodec would give its name away, but its row has no price; so pir may not have it.
    renamed = {
        "id": "isodec",
        "name": {"es": "Techo", "en": "Roof"},
        "aliases": [],
        "base_price_per_m2": "free",
    }
    applied = from_json(renamed, NEW | {"aliases": ["isodac"]})
    assert places(applied) == [(1, "base_price_per_m2"), (2, "aliases")]
    assert applied.catalogue == SHIPPED


def test_a_row_with_more_cells_than_columns_is_wrong() -> None:
    applied = from_csv("id,base_price_per_m2", "isodec,160,50", "lana_roca,150")
    assert places(applied) == [(2, "more cells than columns")]
    assert product_of(applied, "lana_roca").base_price_per_m2 == 150


def test_a_row_that_is_no_product_is_wrong() -> None:
    assert places(from_json("isodec", None, [])) == [(1, "id"), (2, "id"), (3, "id")]


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("csv", "name_es,name_en\nIsodec,Isodec"),
        ("csv", "id,price\nisodec,160"),
        ("csv", "id,id\nisodec,isodec"),
        ("csv", 'id,name_es\nisodec,"open'),
        ("csv", "id\n" + "isodec\n" * 6000),
        ("csv", "id"),
        ("csv", "\n\n"),
        ("json", "{"),
        ("json", "[" * 100_000),
        ("json", "7"),
        ("json", '{"products": {}}'),
        ("json", "[]"),
        ("json", json.dumps([{}] * 6000)),
        ("json", '[{"id": "isodec", "base_price_per_m2": ' + "9" * 5000 + "}]"),
    ],
)
def test_a_file_that_is_not_one_is_refused_whole(form: Any, content: str) -> None:
    with pytest.raises(FileUnreadable):
        read_rows(content, form)


CELLS = st.sampled_from(
    ["", "isodec", "lana_roca", "pir", "160", "0", "50|75", "60", "foam", "x,y", "'", "\x00"]
)
ROWS = st.lists(st.lists(CELLS, min_size=8, max_size=8), max_size=6)


@settings(deadline=None)  # the machine may be busy
@given(ROWS)
def test_any_rows_leave_a_sound_catalogue_and_every_row_accounted_for(
    rows: list[list[str]],
) -> None:
    header = "id;name_es;name_en;aliases;thicknesses_mm;base_price_per_m2;description_es"
    lines = [header + ";description_en", *(";".join(row) for row in rows)]
    try:
        read = read_rows("\n".join(lines), "csv")
    except FileUnreadable:
        return
    applied = apply_rows(SHIPPED, read)
    assert {product.id for product in SHIPPED.products} <= {
        product.id for product in applied.catalogue.products
    }
    wrong = {cell.row for cell in applied.wrong}
    right = [row for row in read if row.number not in wrong]
    assert apply_rows(SHIPPED, right).catalogue == applied.catalogue
