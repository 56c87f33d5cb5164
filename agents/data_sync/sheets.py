"""A sheet of a Google spreadsheet, as a side of a sync; through gspread.

Keeps secret how rows are found in a sheet: by the column that holds their key, whatever people do
around them. Known keys are changed cell by cell in place, new ones are appended. All is written as
it is (RAW), so that nothing is taken for a formula.

gspread brings the API and google-auth the service account's tokens; both ask through
`agents.outside`, by its allow-list, as everybody here.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import gspread
from google.auth.exceptions import GoogleAuthError
from google.auth.transport import Request as TokenRequest
from google.auth.transport import Response as TokenResponse
from google.oauth2.service_account import Credentials
from gspread.urls import SPREADSHEETS_API_V4_BASE_URL
from gspread.utils import (
    DateTimeOption,
    InsertDataOption,
    ValueInputOption,
    ValueRenderOption,
    absolute_range_name,
    rowcol_to_a1,
)

from agents.data_sync.connector import (
    PAGE_ROWS,
    Abilities,
    Document,
    Fault,
    Page,
    SourceRow,
    Values,
)
from agents.data_sync.definitions import GoogleSheetSide
from agents.data_sync.mapping import harmless
from agents.data_sync.web import Refused, Web, asked, understood
from agents.outside import Outside
from orchestrator import TaskError

SCOPES: Final = ("https://www.googleapis.com/auth/spreadsheets",)
GOOGLE: Final = "https://sheets.googleapis.com"
MAX_COLUMNS: Final = 200
# Ranges of one request.
RANGES: Final = 1000


class ServiceAccount:
    """A service account's tokens (an `Authorisation`)."""

    def __init__(self, outside: Outside, key: Any) -> None:
        self._request = _TokenRequest(outside)
        self._lock = threading.Lock()
        try:
            self._credentials: Any = Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                key, scopes=list(SCOPES)
            )
        except (ValueError, TypeError, AttributeError):
            raise TaskError("secret_unusable", "The secret is no service account's key.") from None

    def token(self) -> str:
        with self._lock:
            if not self._credentials.valid:
                self._fetch()
            return str(self._credentials.token)

    def renew(self, refused: str) -> bool:
        with self._lock:
            if self._credentials.token == refused:
                self._fetch()
            return True

    def _fetch(self) -> None:
        try:
            self._credentials.refresh(self._request)
        except GoogleAuthError:
            raise TaskError("credentials_refused", "Google refuses the service account.") from None


class _TokenRequest(TokenRequest):
    """google-auth's way out."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Any = None,
        timeout: Any = None,
        **_: Any,
    ) -> "_TokenResponse":
        content = body.encode() if isinstance(body, str) else body
        answer = asked(self._outside, method, url, content, dict(headers or {}))
        if answer.status == 429 or answer.status >= 500:
            # Not waited for here: the run is put off.
            understood(answer)
        return _TokenResponse(answer.status, answer.headers, answer.body)


class _TokenResponse(TokenResponse):
    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self._told = (status, headers, data)

    @property
    def status(self) -> int:
        return self._told[0]

    @property
    def headers(self) -> Mapping[str, str]:
        return self._told[1]

    @property
    def data(self) -> bytes:
        return self._told[2]


class _Answered:
    """What gspread wants of a response."""

    ok = True

    def __init__(self, data: Any) -> None:
        self._data = data

    def json(self) -> Any:
        return self._data


class _Asking(gspread.HTTPClient):
    """gspread's way out."""

    def __init__(self, web: Web, url: str) -> None:
        self._web = web
        self._base = url.rstrip("/") + SPREADSHEETS_API_V4_BASE_URL.removeprefix(GOOGLE)

    def request(
        self,
        method: str,
        endpoint: str,
        params: Any = None,
        data: Any = None,
        json: Any = None,
        files: Any = None,
        headers: Any = None,
    ) -> Any:
        if not endpoint.startswith(SPREADSHEETS_API_V4_BASE_URL) or data or files:
            raise TaskError("other_side_refused", "Only the Sheets API is asked.")
        url = self._base + endpoint.removeprefix(SPREADSHEETS_API_V4_BASE_URL)
        if params:
            told = {name: _parameter(each) for name, each in params.items() if each is not None}
            url += "?" + urlencode(told, doseq=True)
        try:
            # Numbers as floats, as gspread and the sheet have them.
            return _Answered(self._web.ask(method.upper(), url, body=json).data)
        except Refused as refused:
            raise refused.error() from None


def _parameter(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [str(each) for each in value] if isinstance(value, list) else str(value)


class GoogleSheet:
    """A sheet by its definition."""

    abilities = Abilities(reads=True, complete=True, writes=True, looks_up=True)

    def __init__(self, web: Web, side: GoogleSheetSide) -> None:
        self._side = side
        self._client = _Asking(web, side.url)

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """All rows that have a key, as they are at one moment; a sheet that is as it was has
        none."""
        header, lines = self._table()
        digest = hashlib.sha256(json.dumps([header, lines], default=str).encode()).hexdigest()
        same = cursor is not None and cursor.get("digest") == digest
        if same and cursor is not None and cursor.get("done"):
            yield Page((), cursor, last=True)
            return
        after = int(cursor["row"]) if same and cursor is not None else 0
        if not same:
            start_over = cursor is not None and not cursor.get("done")
            yield Page((), {"digest": digest, "row": 0, "done": False}, start_over=start_over)
        rows = [
            SourceRow(_named(header, line), number)
            for number, line in enumerate(lines, start=self._side.header_row + 1)
            if number > after and any(cell != "" for cell in line)
        ]
        for start in range(0, max(len(rows), 1), PAGE_ROWS):
            some = tuple(rows[start : start + PAGE_ROWS])
            last = start + PAGE_ROWS >= len(rows)
            after = some[-1].place or after if some else after
            yield Page(some, {"digest": digest, "row": after, "done": last}, last=last)

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        """The rows of keys; the first, where a key stands in several."""
        wanted = set(keys)
        header, lines = self._table()
        found: dict[str, Values] = {}
        column = self._key_at(header)
        for line in lines if column is not None else ():
            key = _key(line, column)
            if key in wanted and key not in found:
                found[key] = _named(header, line)
        return found

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """Change the rows of known keys in place, append the others."""
        header, lines = self._table()
        column = self._key_at(header)
        if column is None:
            header, column = self._with_key_column(header)
        at: dict[str, list[int]] = {}
        for number, line in enumerate(lines, start=self._side.header_row + 1):
            if key := _key(line, column):
                at.setdefault(key, []).append(number)
        refused: dict[str, Fault] = {}
        changed: list[Document] = []
        added: list[list[Any]] = []
        for key, values in rows.items():
            cells = {name: cell for name, cell in values.items() if name != self._side.key_column}
            unknown = [name for name in cells if name not in header]
            places = at.get(key, [])
            if unknown:
                refused[key] = Fault(unknown[0], "is no column of the sheet")
            elif len(places) > 1:
                refused[key] = Fault(self._side.key_column, "stands in several rows of the sheet")
            elif places:
                changed += self._ranges(header, places[0], cells)
            else:
                line = [harmless(cells.get(name, "")) for name in header]
                line[column] = key
                added.append(line)
        for start in range(0, len(changed), RANGES):
            body = {
                "valueInputOption": ValueInputOption.raw.value,
                "data": changed[start : start + RANGES],
            }
            self._client.values_batch_update(self._side.spreadsheet, body=body)
        if added:
            # Where its answer is lost, the next attempt finds the keys there.
            self._client.values_append(
                self._side.spreadsheet,
                absolute_range_name(self._side.sheet, f"A{self._side.header_row}"),
                {
                    "valueInputOption": ValueInputOption.raw.value,
                    "insertDataOption": InsertDataOption.insert_rows.value,
                },
                {"values": added},
            )
        return refused

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    def _table(self) -> tuple[list[str], list[list[Any]]]:
        """The names of the columns, and the lines under them."""
        top = self._side.header_row
        last = rowcol_to_a1(1, MAX_COLUMNS).rstrip("0123456789")
        told = self._client.values_get(
            self._side.spreadsheet,
            absolute_range_name(self._side.sheet, f"A{top}:{last}"),
            {
                "valueRenderOption": ValueRenderOption.unformatted.value,
                "dateTimeRenderOption": DateTimeOption.formatted_string.value,
            },
        )
        lines: list[list[Any]] = told.get("values") or [[]]
        header = [str(cell).strip() for cell in lines[0]]
        named = [name for name in header if name]
        if len(named) != len(set(named)):
            raise TaskError("source_unreadable", "A column comes twice in the sheet's header.")
        return header, lines[1:]

    def _key_at(self, header: Sequence[str]) -> int | None:
        name = self._side.key_column
        return header.index(name) if name in header else None

    def _with_key_column(self, header: list[str]) -> tuple[list[str], int]:
        """A new column at the right, for the keys."""
        column = len(header)
        where = rowcol_to_a1(self._side.header_row, column + 1)
        self._client.values_update(
            self._side.spreadsheet,
            absolute_range_name(self._side.sheet, where),
            {"valueInputOption": ValueInputOption.raw.value},
            {"values": [[self._side.key_column]]},
        )
        return [*header, self._side.key_column], column

    def _ranges(
        self, header: Sequence[str], number: int, cells: Mapping[str, Any]
    ) -> list[Document]:
        """The cells of a row that are written, neighbours together."""
        columns = sorted(header.index(name) for name in cells)
        ranges: list[Document] = []
        while columns:
            begin = columns[0]
            width = next(
                (n for n, column in enumerate(columns) if column != begin + n), len(columns)
            )
            line = [harmless(cells[header[column]]) for column in columns[:width]]
            first = rowcol_to_a1(number, begin + 1)
            last = rowcol_to_a1(number, begin + width)
            where = absolute_range_name(self._side.sheet, f"{first}:{last}")
            ranges.append({"range": where, "values": [line]})
            columns = columns[width:]
        return ranges


def _named(header: Sequence[str], line: Sequence[Any]) -> dict[str, Any]:
    # An apostrophe that made a text harmless is not part of it.
    return {name: _plain(cell) for name, cell in zip(header, line, strict=False) if name}


def _plain(cell: Any) -> Any:
    if isinstance(cell, str) and cell.startswith("'") and harmless(cell[1:]) == cell:
        return cell[1:]
    return cell


def _key(line: Sequence[Any], column: int | None) -> str:
    if column is None or column >= len(line):
        return ""
    cell = line[column]
    if isinstance(cell, float | Decimal) and cell == int(cell):
        cell = int(cell)
    return str(_plain(cell)).strip()
