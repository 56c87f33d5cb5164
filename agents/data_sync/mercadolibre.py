"""A MercadoLibre seller's items, as a side of a sync; and the API that its questions go by.

Keeps secret MercadoLibre's ways: items are scanned by their ids and then read twenty at a time, a
scan's place is forgotten after five minutes, and a price may be taken with 200 and ignored where
the listing's price is automated.

https://developers.mercadolibre.com.ar/en_us/items-and-searches
https://developers.mercadolibre.com.ar/en_us/products-sync-listings
https://developers.mercadolibre.com.ar/en_us/manage-questions-and-answers
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import quote, urlencode

from agents.data_sync.connector import Abilities, Document, Fault, Page, SourceRow, Values
from agents.data_sync.web import Refused, Web
from orchestrator import TaskError
from orchestrator.errors import RetryLater

SCANNED: Final = 100
READ_AT_ONCE: Final = 20
QUESTIONS: Final = 50
MAX_ANSWER_CHARS: Final = 2000
ROW_REFUSED: Final = frozenset({400, 403, 404, 409, 422})
_NUMBERS: Final = frozenset({"price", "available_quantity"})


class MercadoLibre:
    """A seller's account."""

    abilities = Abilities(reads=True, complete=True, writes=True, looks_up=True)

    def __init__(self, web: Web, url: str, seller_id: int) -> None:
        self._web = web
        self._url = url.rstrip("/")
        self._seller_id = seller_id

    # -- items ---------------------------------------------------------------------------

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """All items of the seller."""
        scroll = None if cursor is None else cursor.get("scroll")
        start_over = False
        while True:
            asked = {"search_type": "scan", "limit": str(SCANNED)}
            if scroll:
                asked["scroll_id"] = scroll
            try:
                found = self._get(f"/users/{self._seller_id}/items/search", asked)
            except Refused as refused:
                if scroll is None or start_over:
                    raise refused.error() from None
                # Its place in the scan is forgotten.
                scroll, start_over = None, True
                continue
            ids = [str(each) for each in found.get("results") or ()]
            scroll = found.get("scroll_id")
            last = not ids or not scroll
            rows = tuple(
                SourceRow(item, changed_at=_time(item.get("last_updated")))
                for item in self._items(ids).values()
            )
            yield Page(rows, {} if last else {"scroll": scroll}, last=last, start_over=start_over)
            start_over = False
            if last:
                return

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        """Items under their ids."""
        return {
            key: item | {"@changed_at": _time(item.get("last_updated"))}
            for key, item in self._items(list(keys)).items()
        }

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """Change items that there are."""
        refused = {}
        for key, values in rows.items():
            wanted = {name: _number(name, cell) for name, cell in values.items() if name != "id"}
            if not wanted:
                continue
            try:
                reply = self._web.ask(
                    "PUT", f"{self._url}/items/{quote(key, safe='')}", body=wanted
                )
            except Refused as error:
                if error.status not in ROW_REFUSED:
                    raise error.error() from None
                told = error.data if isinstance(error.data, dict) else {}
                code = str(told.get("error", error.status))[:60]
                refused[key] = Fault("id", f"was refused by MercadoLibre ({code})")
                continue
            item = reply.data if isinstance(reply.data, dict) else {}
            for name in _NUMBERS & wanted.keys():
                if name in item and Decimal(str(item[name])) != Decimal(str(wanted[name])):
                    refused[key] = Fault(name, "was taken by MercadoLibre and not changed")
        return refused

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    def _items(self, ids: list[str]) -> dict[str, Document]:
        found = {}
        for start in range(0, len(ids), READ_AT_ONCE):
            some = ids[start : start + READ_AT_ONCE]
            try:
                told = self._get("/items", {"ids": ",".join(some)})
            except Refused as refused:
                raise refused.error() from None
            for each in told if isinstance(told, list) else ():
                if each.get("code") == 200:
                    found[str(each["body"]["id"])] = each["body"]
                elif each.get("code") != 404:
                    raise RetryLater("Some items could not be read.", reason="items_unread")
        return found

    # -- questions -----------------------------------------------------------------------

    def unanswered(self) -> Iterator[Document]:
        """Questions that nobody has answered, the oldest first: {id, item_id, text, from,
        date_created}.

        Those that come or are answered while this reads move the pages; what is stepped over is
        there the next time.
        """
        offset = 0
        while True:
            asked = {
                "seller_id": str(self._seller_id),
                "status": "UNANSWERED",
                "sort_fields": "date_created",
                "sort_types": "ASC",
                "api_version": "4",
                "limit": str(QUESTIONS),
                "offset": str(offset),
            }
            try:
                found = self._get("/questions/search", asked)
            except Refused as refused:
                raise refused.error() from None
            questions = found.get("questions") or []
            yield from questions
            offset += len(questions)
            if not questions or offset >= int(found.get("total", 0)):
                return

    def answer(self, question_id: str, text: str) -> None:
        """Answer a question, once: a second answer is refused by MercadoLibre.

        Raises:
            Refused: it cannot be answered (any more).
        """
        body = {"question_id": int(question_id), "text": text}
        self._web.ask("POST", f"{self._url}/answers", body=body)

    def answered_with(self, question_id: str) -> str | None:
        """What a question was answered with; None where it was not, or is gone."""
        try:
            told = self._get(f"/questions/{int(question_id)}", {"api_version": "4"})
        except Refused:
            return None
        answer = told.get("answer")
        return answer.get("text") if isinstance(answer, dict) else None

    def _get(self, path: str, query: Mapping[str, str]) -> Any:
        data = self._web.ask("GET", f"{self._url}{path}?{urlencode(query)}").data
        if not isinstance(data, dict | list):
            raise TaskError("source_unreadable", "The answer is not MercadoLibre's.")
        return data


def _number(name: str, cell: Any) -> Any:
    """Prices and quantities as JSON numbers, as the API wants them."""
    if name not in _NUMBERS or isinstance(cell, int | float):
        return cell
    with suppress(InvalidOperation):
        number = Decimal(str(cell))
        return int(number) if number == number.to_integral_value() else float(number)
    return cell


def _time(text: Any) -> dt.datetime | None:
    with suppress(TypeError, ValueError):
        return dt.datetime.fromisoformat(text)
    return None
