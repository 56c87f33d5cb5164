"""Files of the import folder as a source: CSV, JSON, JSON lines, XLSX.

Keeps secret how a file is read a page at a time, whatever its size, and how a read that was
broken off goes on at the same row: the cursor holds the digest of the file, and a file that has
changed since is read from its beginning. A file that is as it was at the last sync has no rows.
"""

import csv
import datetime as dt
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import ijson

from agents.data_sync.connector import (
    PAGE_ROWS,
    Abilities,
    Document,
    Fault,
    Page,
    SourceRow,
    Values,
)
from orchestrator import TaskError
from orchestrator.errors import RetryLater

FileFormat = Literal["csv", "json", "jsonl", "xlsx"]
FORMATS: Final[Mapping[str, FileFormat]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "xlsx",
}
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
# An XLSX is a zip: what it unpacks to is limited as well.
MAX_UNPACKED_BYTES: Final = 2 * 1024 * 1024 * 1024
MAX_ROWS: Final = 2_000_000
MAX_COLUMNS: Final = 500
MAX_LINE_CHARS: Final = 1_000_000
MAX_NESTING: Final = 20
_DELIMITERS: Final = ",;\t|"


def unreadable(why: str) -> TaskError:
    """The file as a whole is not what it should be; `why` names no value of it."""
    return TaskError("file_unreadable", f"The file cannot be read: {why}.")


def file_in(folder: Path | None, path: str) -> Path:
    """A file of the import folder; links that lead out of it are not followed.

    Raises:
        TaskError: `import_folder_missing`, `file_not_found`.
    """
    if folder is None:
        raise TaskError("import_folder_missing", "IMPORT_DIR is not set.")
    root = folder.resolve()
    try:
        file = (root / Path(path)).resolve()
        there = file.is_relative_to(root) and file.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        raise TaskError("file_not_found", "There is no such file in the import folder.")
    return file


class FileSource:
    """A file as rows. `sheet` names the sheet of an XLSX (else its first), `header_row` the row
    with the names of the columns, `items` where the list is in a JSON file (`data.products`)."""

    abilities = Abilities(reads=True, complete=True)

    def __init__(
        self,
        folder: Path | None,
        path: str,
        *,
        form: FileFormat | None = None,
        sheet: str | None = None,
        header_row: int = 1,
        items: str = "",
        page_rows: int = PAGE_ROWS,
    ) -> None:
        self._folder = folder
        self._path = path
        self._form = form
        self._sheet = sheet
        self._header_row = header_row
        self._items = items
        self._page_rows = page_rows

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """Pages of rows; `place` is the row's number as a spreadsheet shows it, in JSON the
        item's."""
        path = file_in(self._folder, self._path)
        form = self._form or FORMATS.get(path.suffix.lower())
        if form is None:
            raise unreadable("its ending tells no format: name one")
        with path.open("rb") as file:
            size = path.stat().st_size
            changed_at = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
            if size > MAX_FILE_BYTES:
                raise unreadable(f"it is larger than {MAX_FILE_BYTES // 1024**2} MB")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            same = cursor is not None and cursor.get("digest") == digest
            if same and cursor is not None and cursor.get("done"):
                yield Page((), cursor, last=True)
                return
            after = int(cursor["row"]) if same and cursor is not None else 0
            start_over = cursor is not None and not same and not cursor.get("done")
            file.seek(0)
            if not same:
                # Noted before any row: so a file that is another one the next time is known.
                yield Page((), {"digest": digest, "row": 0, "done": False}, start_over=start_over)
            found = (
                replace(row, changed_at=changed_at)
                for row in self._rows(file, form)
                if (row.place or 0) > after
            )
            while True:
                rows = tuple(islice(found, self._page_rows))
                if os.fstat(file.fileno()).st_size != size:
                    raise RetryLater("The file changes while it is read.", after_s=5.0)
                last = len(rows) < self._page_rows
                after = rows[-1].place or after if rows else after
                position: Document = {"digest": digest, "row": after, "done": last}
                yield Page(rows, position, last=last)
                if last:
                    return

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        raise NotImplementedError

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        raise NotImplementedError

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    def _rows(self, file: BinaryIO, form: FileFormat) -> Iterator[SourceRow]:
        read = {"csv": self._csv, "json": self._json, "jsonl": self._lines, "xlsx": self._xlsx}
        for row in read[form](file):
            if (row.place or 0) > MAX_ROWS:
                raise unreadable(f"it has more than {MAX_ROWS} rows")
            yield row

    def _csv(self, file: BinaryIO) -> Iterator[SourceRow]:
        lines = _texts(file)
        first = list(islice(lines, self._header_row))
        if len(first) < self._header_row:
            raise unreadable("it has no header")
        delimiter = max(_DELIMITERS, key=first[-1].count)
        reader = csv.reader([first[-1]], delimiter=delimiter, strict=True)
        number = self._header_row
        try:
            columns = _header(next(reader, []))
            for number, cells in enumerate(
                csv.reader(lines, delimiter=delimiter, strict=True), start=self._header_row + 1
            ):
                if any(cell.strip() for cell in cells):
                    yield SourceRow(dict(zip(columns, cells, strict=False)), number)
        except csv.Error:
            raise unreadable(f"row {number + 1} is not CSV") from None

    def _xlsx(self, file: BinaryIO) -> Iterator[SourceRow]:
        # Slow to load, and most syncs have no such file.
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException

        try:
            with zipfile.ZipFile(file) as archive:
                if sum(each.file_size for each in archive.infolist()) > MAX_UNPACKED_BYTES:
                    raise unreadable("it unpacks to too much")
            file.seek(0)
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except (zipfile.BadZipFile, InvalidFileException, KeyError, OSError, ValueError) as error:
            raise unreadable("it is not XLSX") from error
        try:
            names = {sheet.title: sheet for sheet in book.worksheets}
            if self._sheet is not None and self._sheet not in names:
                raise unreadable("it has no sheet of that name")
            sheet = names[self._sheet] if self._sheet else book.worksheets[0]
            rows = sheet.iter_rows(min_row=self._header_row, max_col=MAX_COLUMNS, values_only=True)
            columns = _header(["" if cell is None else str(cell) for cell in next(rows, ())])
            for number, cells in enumerate(rows, start=self._header_row + 1):
                values = {
                    column: cell
                    for column, cell in zip(columns, cells, strict=False)
                    if column and cell is not None
                }
                if values:
                    yield SourceRow(values, number)
        except (zipfile.BadZipFile, KeyError, SyntaxError, EOFError) as error:
            raise unreadable("its sheet is broken") from error
        finally:
            book.close()

    def _json(self, file: BinaryIO) -> Iterator[SourceRow]:
        number = 0
        try:
            for number, item in enumerate(_items(file, self._items), start=1):
                yield _item(item, number)
        except (ijson.JSONError, UnicodeDecodeError):
            raise unreadable(f"it is not JSON after item {number}") from None

    def _lines(self, file: BinaryIO) -> Iterator[SourceRow]:
        for number, line in enumerate(_texts(file), start=1):
            if line.strip():
                try:
                    item = json.loads(line, parse_float=Decimal, parse_constant=str)
                except (ValueError, RecursionError):
                    raise unreadable(f"line {number} is not JSON") from None
                yield _item(item, number)


_Events = Iterator[tuple[str, Any]]


def _items(file: BinaryIO, path: str) -> Iterator[Any]:
    """The items of the list at a path, one by one.

    Built here from the parser's events: the library's own way knows no limit of nesting, and some
    100 kB of brackets make it take all memory that there is.
    """
    events: _Events = ijson.basic_parse(file, use_float=False)
    event, _ = next(events)
    for part in path.split(".") if path else ():
        if event != "start_map":
            raise unreadable("there is no list where it should be")
        for kind, key in events:
            if kind == "end_map":
                raise unreadable("there is no list where it should be")
            event, value = next(events)
            if key == part:
                break
            _built(events, event, value, MAX_NESTING)
    if event != "start_array":
        raise unreadable("there is no list where it should be")
    for event, value in events:
        if event == "end_array":
            return
        yield _built(events, event, value, MAX_NESTING)


def _built(events: _Events, event: str, value: Any, nesting: int) -> Any:
    if nesting == 0:
        raise unreadable("it is nested too deep")
    if event == "start_map":
        built: dict[str, Any] = {}
        for kind, key in events:
            if kind == "end_map":
                return built
            first, inner = next(events)
            built[key] = _built(events, first, inner, nesting - 1)
    if event == "start_array":
        listed: list[Any] = []
        for kind, inner in events:
            if kind == "end_array":
                return listed
            listed.append(_built(events, kind, inner, nesting - 1))
    return value


def _item(item: Any, number: int) -> SourceRow:
    return SourceRow(item if isinstance(item, dict) else {}, number)


def _texts(file: BinaryIO) -> Iterator[str]:
    """The lines of a text in UTF-8, none of them longer than memory should hold."""
    try:
        for number in range(1, 2**62):
            line = file.readline(MAX_LINE_CHARS)
            if not line:
                return
            if len(line) == MAX_LINE_CHARS:
                raise unreadable(f"line {number} is too long")
            text = line.decode("utf-8")
            yield text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError:
        raise unreadable("it is not UTF-8") from None


def _header(cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise unreadable("its header names no columns")
    if len(columns) > MAX_COLUMNS:
        raise unreadable(f"it has more than {MAX_COLUMNS} columns")
    named = [column for column in columns if column]
    for place, column in enumerate(named):
        if column in named[:place]:
            raise unreadable(f"a column comes twice in its header (column {place + 1})")
    return columns
