"""Rows of others as records of ours, column by column; pure.

Keeps secret how cells are read: what the source calls a column, which texts are a number or a
date there, and what is wrong with a cell. What goes out to spreadsheets is made harmless here.

A record is JSON: texts, integers, booleans, lists of texts; decimals as strings without an
exponent, dates and times in ISO 8601. So records of equal content are equal.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.data_sync.connector import Values

Record = dict[str, Any]
Kind = Literal["text", "integer", "decimal", "boolean", "date", "datetime", "list"]
Name = Annotated[str, Field(min_length=1, max_length=100)]

MAX_CELL_CHARS: Final = 10_000
MAX_KEY_CHARS: Final = 200
MAX_SHOWN_CHARS: Final = 100
_MAX_LIST: Final = 200
_TRUE: Final = frozenset({"true", "yes", "sí", "si", "1", "x", "verdadero"})
_FALSE: Final = frozenset({"false", "no", "0", "falso"})
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,12})?")
# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV injection"), also in
# full width.
_FORMULA: Final = frozenset("=+-@\t\r\n＝＋－＠")
# A phone or a number may begin with a sign: nothing can be called by it.
_HARMLESS: Final = re.compile(r"[+-]?[0-9][0-9 .,()/-]*")


class Column(BaseModel):
    """How a field of a record is read from a column of the source.

    `decimal_comma`: numbers are written 1.234,56 there. `required`: a row without it is wrong;
    else an empty cell leaves the field as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: Name | None = Field(None, alias="from")
    kind: Kind = Field("text", alias="type")
    required: bool = False
    max_chars: int = Field(2000, ge=1, le=MAX_CELL_CHARS)
    one_of: tuple[Name, ...] = Field((), max_length=100)
    at_least: Decimal | None = None
    at_most: Decimal | None = None
    separator: str = Field("|", min_length=1, max_length=3)
    decimal_comma: bool = False
    format: str | None = Field(None, max_length=40)
    constant: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _bounds_of_numbers(self) -> Self:
        if (self.at_least, self.at_most) != (None, None) and self.kind not in (
            "integer",
            "decimal",
        ):
            raise ValueError("at_least and at_most are for integers and decimals")
        return self


@dataclass(frozen=True)
class WrongCell:
    """A cell that kept its row from going in. `value` is what it holds, shortened: it is for the
    report that the operator reads, never for a log."""

    row: int | str
    column: str
    value: str
    reason: str

    def to_document(self) -> Record:
        """As JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Mapped:
    """A row as a record under its key, or what is wrong with it."""

    key: str | None
    record: Record
    wrong: tuple[WrongCell, ...] = ()


class _Wrong(ValueError):
    """A cell is not what its column says; the message is the reason."""


def read_row(values: Values, place: int | str, columns: Mapping[str, Column], key: str) -> Mapped:
    """A row of the source as a record; cells that are empty are left out of it."""
    record: Record = {}
    wrong: list[WrongCell] = []
    for name, column in columns.items():
        source = column.source or name
        raw = column.constant if column.constant is not None else _at(values, source)
        if _empty(raw):
            if column.required or name == key:
                wrong.append(WrongCell(place, source, "", "is missing"))
            continue
        try:
            record[name] = _read(raw, column)
        except _Wrong as problem:
            wrong.append(WrongCell(place, source, _shown(raw), str(problem)))
    found = record.get(key)
    text = None if found is None else str(found)
    if text is not None and len(text) > MAX_KEY_CHARS:
        source = columns[key].source or key
        reason = f"is longer than {MAX_KEY_CHARS} characters, and is the key"
        wrong.append(WrongCell(place, source, _shown(text), reason))
    return Mapped(text, record, tuple(wrong))


def written_row(record: Record, columns: Mapping[str, Column], *, flat: bool) -> Record:
    """A record as the target calls its columns; fields without a column stay at home. `flat`
    is for spreadsheets: lists become one text, numbers numbers, and no text begins a formula."""
    row: Record = {}
    for name, column in columns.items():
        if column.constant is not None:
            row[column.source or name] = column.constant
        elif name in record:
            value = record[name]
            if flat and isinstance(value, list):
                value = column.separator.join(map(str, value))
            if flat and column.kind == "decimal":
                # A number there, too; what a text looks like is nothing to count with.
                value = float(value)
            if flat:
                value = harmless(value)
            row[column.source or name] = value
    return row


def harmless(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, wherever it is copied or exported to: a
    text that looks like one begins with an apostrophe then."""
    if not isinstance(cell, str):
        return cell
    begin = cell.lstrip(" \u00a0\ufeff")
    if begin[:1] in _FORMULA and begin[:1] and not _HARMLESS.fullmatch(begin.strip()):
        return "'" + cell
    return cell


def _at(values: Values, path: str) -> Any:
    """A cell by the name of its column; `a.b` also reaches into what is nested."""
    if path in values:
        return values[path]
    found: Any = values
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _empty(raw: Any) -> bool:
    return raw is None or raw == [] or (isinstance(raw, str) and not raw.strip())


def _shown(raw: Any) -> str:
    text = raw if isinstance(raw, str) else repr(raw)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _read(raw: Any, column: Column) -> Any:
    match column.kind:
        case "integer":
            number = _number(raw, column)
            if number != number.to_integral_value():
                raise _Wrong("must be a whole number")
            return int(number)
        case "decimal":
            return format(_normal(_number(raw, column)), "f")
        case "boolean":
            return _boolean(raw)
        case "date" | "datetime":
            return _time(raw, column)
        case "list":
            parts = raw if isinstance(raw, list) else str(raw).split(column.separator)
            if len(parts) > _MAX_LIST:
                raise _Wrong(f"has more than {_MAX_LIST} entries")
            return [_text(part, column) for part in parts if not _empty(part)]
        case _:
            return _text(raw, column)


def _text(raw: Any, column: Column) -> str:
    if isinstance(raw, bool):
        text = "true" if raw else "false"
    elif isinstance(raw, float) and raw.is_integer():
        # Spreadsheets hold every number as a float: 4711.0 is the article 4711.
        text = str(int(raw))
    elif isinstance(raw, int | float | Decimal | str):
        text = str(raw).strip()
    elif isinstance(raw, dt.datetime | dt.date):
        text = raw.isoformat()
    else:
        raise _Wrong("must be a text")
    if len(text) > column.max_chars:
        raise _Wrong(f"is longer than {column.max_chars} characters")
    if any("\ud800" <= char <= "\udfff" or char == "\x00" for char in text):
        raise _Wrong("has characters that cannot be kept")
    if column.one_of and text not in column.one_of:
        raise _Wrong(f"must be one of {', '.join(column.one_of)}"[:300])
    return text


def _number(raw: Any, column: Column) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | float | Decimal | str):
        raise _Wrong("must be a number")
    # The shortest digits of a float are those that were written.
    text = format(Decimal(repr(raw)), "f") if isinstance(raw, float) and raw == raw else str(raw)
    text = text.strip().replace("\u00a0", "").removeprefix("$").strip()
    if column.decimal_comma and isinstance(raw, str):
        text = text.replace(".", "").replace(",", ".")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _Wrong(_like(column)) from None
    if not number.is_finite() or not _NUMBER.fullmatch(format(number, "f")):
        raise _Wrong(_like(column))
    if column.at_least is not None and number < column.at_least:
        raise _Wrong(f"must be at least {column.at_least}")
    if column.at_most is not None and number > column.at_most:
        raise _Wrong(f"must be at most {column.at_most}")
    return number


def _like(column: Column) -> str:
    example = "1.234,50" if column.decimal_comma else "1234.50"
    return f"must be a number such as {example}"


def _normal(number: Decimal) -> Decimal:
    """149.90 and 149.9 are one price."""
    return (
        number.to_integral_value() if number == number.to_integral_value() else number.normalize()
    )


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise _Wrong("must be yes or no")


def _time(raw: Any, column: Column) -> str:
    try:
        if isinstance(raw, dt.datetime):
            moment = raw
        elif isinstance(raw, dt.date):
            moment = dt.datetime(raw.year, raw.month, raw.day, tzinfo=dt.UTC)
        elif column.format is not None:
            moment = dt.datetime.strptime(str(raw).strip(), column.format)  # noqa: DTZ007
        else:
            moment = dt.datetime.fromisoformat(str(raw).strip())
    except ValueError:
        raise _Wrong(f"must be a date such as {column.format or '2026-11-27'}") from None
    if column.kind == "date":
        return moment.date().isoformat()
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC).isoformat()
