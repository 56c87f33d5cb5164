"""Rows become records column by column; what is wrong is told cell by cell."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.data_sync.mapping import Column, harmless, read_row, written_row


def column(**more: Any) -> Column:
    return Column.model_validate(more)


def read(raw: Any, **more: Any) -> Any:
    mapped = read_row({"c": raw, "id": "1"}, 7, {"id": column(), "c": column(**more)}, "id")
    return mapped.wrong[0].reason if mapped.wrong else mapped.record.get("c")


@pytest.mark.parametrize(
    ("raw", "more", "record"),
    [
        (" Isodec ", {}, "Isodec"),
        (4711.0, {}, "4711"),
        (True, {}, "true"),
        ("12", {"type": "integer"}, 12),
        (12.0, {"type": "integer"}, 12),
        ("149.90", {"type": "decimal"}, "149.9"),
        (149.9, {"type": "decimal"}, "149.9"),
        (Decimal("0.10"), {"type": "decimal"}, "0.1"),
        (100, {"type": "decimal"}, "100"),
        ("$ 1.234,50", {"type": "decimal", "decimal_comma": True}, "1234.5"),
        ("Sí", {"type": "boolean"}, True),
        ("no", {"type": "boolean"}, False),
        (dt.datetime(2026, 11, 27), {"type": "date"}, "2026-11-27"),  # noqa: DTZ001
        ("27/11/2026", {"type": "date", "format": "%d/%m/%Y"}, "2026-11-27"),
        ("2026-11-27T10:00:00-03:00", {"type": "datetime"}, "2026-11-27T13:00:00+00:00"),
        ("a| b |", {"type": "list"}, ["a", "b"]),
        (["a", "b"], {"type": "list"}, ["a", "b"]),
        ("", {}, None),
        (None, {"type": "decimal"}, None),
    ],
)
def test_a_cell_is_read(raw: Any, more: dict[str, Any], record: Any) -> None:
    assert read(raw, **more) == record


@pytest.mark.parametrize(
    ("raw", "more", "reason"),
    [
        ("1,234", {"type": "decimal"}, "must be a number such as 1234.50"),
        ("free", {"type": "decimal", "decimal_comma": True}, "must be a number such as 1.234,50"),
        ("NaN", {"type": "decimal"}, "must be a number such as 1234.50"),
        (float("nan"), {"type": "decimal"}, "must be a number such as 1234.50"),
        ("1e400", {"type": "decimal"}, "must be a number such as 1234.50"),
        (True, {"type": "integer"}, "must be a number"),
        ("1.5", {"type": "integer"}, "must be a whole number"),
        ("-1", {"type": "decimal", "at_least": 0}, "must be at least 0"),
        ("maybe", {"type": "boolean"}, "must be yes or no"),
        ("31/02/2026", {"type": "date", "format": "%d/%m/%Y"}, "must be a date such as %d/%m/%Y"),
        ("x" * 11, {"max_chars": 10}, "is longer than 10 characters"),
        ("z", {"one_of": ["a", "b"]}, "must be one of a, b"),
        ({"a": 1}, {}, "must be a text"),
        ("\ud800", {}, "has characters that cannot be kept"),
        ("", {"required": True}, "is missing"),
    ],
)
def test_a_wrong_cell_is_told_with_its_reason(raw: Any, more: dict[str, Any], reason: str) -> None:
    assert read(raw, **more) == reason


def test_a_report_names_row_column_value_and_reason() -> None:
    columns = {
        "id": column(**{"from": "Código"}),
        "price": column(**{"from": "Precio", "type": "decimal"}),
    }
    mapped = read_row({"Código": "", "Precio": "gratis"}, 4, columns, "id")
    assert [cell.to_document() for cell in mapped.wrong] == [
        {"row": 4, "column": "Código", "value": "", "reason": "is missing"},
        {
            "row": 4,
            "column": "Precio",
            "value": "gratis",
            "reason": "must be a number such as 1234.50",
        },
    ]


def test_what_is_nested_is_reached_and_written_back_under_the_target_s_names() -> None:
    columns = {
        "id": column(),
        "price": column(**{"from": "variants.0.price", "type": "decimal"}),
        "tags": column(type="list", separator=", "),
        "origin": column(constant="WA"),
    }
    mapped = read_row(
        {"id": 7, "variants": [{"price": "9.0"}], "tags": ["a", "b"]}, 1, columns, "id"
    )
    assert mapped.record == {"id": "7", "price": "9", "tags": ["a", "b"], "origin": "WA"}
    row = {"id": "7", "variants.0.price": "9", "tags": ["a", "b"], "origin": "WA"}
    assert written_row(mapped.record, columns, flat=False) == row
    flat = written_row(mapped.record | {"id": "=1+1"}, columns, flat=True)
    assert flat == row | {"variants.0.price": 9, "tags": "a, b", "id": "'=1+1"}


def test_bounds_are_for_numbers() -> None:
    with pytest.raises(ValidationError):
        column(at_least=1)


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd", "\t=1", "\r=1", "＝1", "  =1", "+1+1a"],
)
def test_what_looks_like_a_formula_is_made_harmless(cell: str) -> None:
    assert harmless(cell) == "'" + cell


@pytest.mark.parametrize(
    "cell", ["+598 99 123 456", "-15.50", "+59899123456", "a=1", "", 5, None, "'x"]
)
def test_what_is_none_stays(cell: object) -> None:
    assert harmless(cell) == cell


@given(st.text())
def test_no_cell_begins_a_formula(cell: str) -> None:
    told = harmless(cell)
    begin = told.lstrip(" \u00a0\ufeff")[:1]
    harmless_sign = begin in ("+", "-") and told.strip(" \u00a0\ufeff")[1:2].isdigit()
    assert begin == "" or begin not in "=+-@\t\r\n＝＋－＠" or harmless_sign


@given(
    st.dictionaries(
        st.sampled_from(["id", "c"]),
        st.one_of(
            st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.text())
        ),
    ),
    st.sampled_from(["text", "integer", "decimal", "boolean", "date", "datetime", "list"]),
)
def test_any_row_is_a_record_or_says_why_not(values: dict[str, Any], kind: str) -> None:
    mapped = read_row(values, 1, {"id": column(), "c": column(type=kind)}, "id")
    assert mapped.wrong or mapped.key is not None
