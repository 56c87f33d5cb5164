"""Any HTTP API that answers with JSON, as a side of a sync.

Keeps secret how its pages are walked. By offset each page overlaps the one before by a row: where
that row is another one, rows have moved meanwhile, and a page is read again, so that none is
stepped over. Rows that come twice are known by their key.
"""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from agents.data_sync.connector import Abilities, Document, Fault, Page, SourceRow, Values
from agents.data_sync.definitions import HttpSide
from agents.data_sync.web import Refused, Reply, Web
from orchestrator import TaskError

# Rows that are wrong in the other side's eyes, rather than the request.
ROW_REFUSED: Final = frozenset({400, 404, 409, 413, 422})
# How often rows may move under one read before it begins anew.
MAX_STEPS_BACK: Final = 100


class HttpJson:
    """An API by its definition. `now` is the time that `changed_since` is told in."""

    def __init__(self, web: Web, side: HttpSide, now: Callable[[], dt.datetime]) -> None:
        self._web = web
        self._side = side
        self._now = now
        whole = side.paging.kind in ("none", "offset", "cursor", "link")
        self.abilities = Abilities(
            reads=True,
            complete=whole and side.changed_since is None,
            writes=side.write_url is not None,
        )

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """Pages; after the last one, the cursor holds when this read began, and the ETag."""
        at: Document = dict(cursor or {})
        if at.get("done") or not at:
            began = self._now().isoformat()
            at = {"since": at.get("began"), "began": began, "etag": at.get("etag")}
        steps_back = 0
        while True:
            reply = self._asked(at)
            if reply.status == 304:
                yield Page((), at | {"done": True}, last=True)
                return
            items = self._items(reply.data)
            rows = items
            if self._side.paging.kind == "offset" and at.get("tail") is not None:
                if not items or _digest(items[0]) != at["tail"]:
                    steps_back += 1
                    if steps_back > MAX_STEPS_BACK:
                        raise TaskError("source_moves", "The rows move faster than they are read.")
                    # Rows before this page are gone: what follows them moved up.
                    back = max(int(at["position"]) - self._side.paging.size, 0)
                    at = at | {"position": back, "tail": None}
                    continue
                rows = items[1:]
            following = self._following(at, reply, items)
            position = at | (following or {"done": True, "etag": reply.headers.get("etag")})
            if following is None:
                position = {
                    name: position[name]
                    for name in ("began", "since", "etag", "done")
                    if name in position
                }
            found = tuple(SourceRow(item if isinstance(item, dict) else {}) for item in rows)
            yield Page(found, position, last=following is None)
            if following is None:
                return
            at = position

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        raise NotImplementedError

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """PUT each row under its key: as often as one likes."""
        refused = {}
        assert self._side.write_url is not None
        for key, values in rows.items():
            url = self._side.write_url.replace("{key}", quote(key, safe=""))
            try:
                self._web.ask("PUT", url, body=dict(values))
            except Refused as error:
                if error.status not in ROW_REFUSED:
                    raise error.error() from None
                refused[key] = Fault("", f"was refused with {error.status}")
        return refused

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    # -- pages ----------------------------------------------------------------------------

    def _asked(self, at: Document) -> Reply:
        paging = self._side.paging
        query: dict[str, str] = {}
        headers: dict[str, str] = {}
        url = self._side.url
        if self._side.changed_since is not None and at.get("since"):
            query[self._side.changed_since] = at["since"]
        if paging.size_parameter is not None:
            query[paging.size_parameter] = str(paging.size)
        match paging.kind:
            case "page":
                query[paging.parameter] = str(at.get("position", paging.first))
            case "offset":
                # One row of the page before comes along.
                begin = int(at.get("position", 0)) - (1 if at.get("tail") is not None else 0)
                query[paging.parameter] = str(begin)
            case "cursor" if at.get("position") is not None:
                query[paging.parameter] = at["position"]
            case "link" if at.get("position") is not None:
                url, query = at["position"], {}
            case "none":
                if at.get("etag"):
                    headers["If-None-Match"] = at["etag"]
        try:
            return self._web.ask("GET", _with(url, query), headers=headers)
        except Refused as refused:
            raise refused.error() from None

    def _items(self, data: Any) -> list[Any]:
        found = data
        for part in self._side.items.split(".") if self._side.items else ():
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, list):
            raise TaskError("source_unreadable", "The answer holds no list where it should.")
        return found

    def _following(self, at: Document, reply: Reply, items: list[Any]) -> Document | None:
        """Where the next page begins; None after the last."""
        paging = self._side.paging
        match paging.kind:
            case "page":
                full = len(items) >= paging.size
                return {"position": at.get("position", paging.first) + 1} if full else None
            case "offset":
                overlap = 1 if at.get("tail") is not None else 0
                if len(items) < paging.size:
                    return None
                position = int(at.get("position", 0)) + len(items) - overlap
                return {"position": position, "tail": _digest(items[-1])}
            case "cursor":
                following: Any = reply.data
                for part in (paging.next or "next").split("."):
                    following = following.get(part) if isinstance(following, dict) else None
                return {"position": str(following)} if following and items else None
            case "link":
                target = _next_link(reply.headers.get("link", ""))
                return {"position": self._same_origin(target)} if target else None
        return None

    def _same_origin(self, target: str) -> str:
        """A link's address; another host would be given our token."""
        url = urljoin(self._side.url, target)
        if urlsplit(url)[:2] != urlsplit(self._side.url)[:2]:
            raise TaskError("source_unreadable", "The next page is at another host.")
        return url


def _digest(item: Any) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _with(url: str, query: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    merged = dict(parse_qsl(parts.query, keep_blank_values=True)) | dict(query)
    return urlunsplit(parts._replace(query=urlencode(merged)))


def _next_link(header: str) -> str | None:
    """The target of rel="next" in a Link header (RFC 8288)."""
    for target, parameters in re.findall(r"<([^<>]*)>((?:\s*;[^,<]*)*)", header[:8000]):
        if re.search(r';\s*rel\s*=\s*"?(?:[^";]*\s)?next(?:\s[^";]*)?"?\s*(?:;|$)', parameters):
            return str(target)
    return None
