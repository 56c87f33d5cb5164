"""Pages of lists: opaque tokens, the same in every list.

A token holds a position and a digest of the filters that it was made with, so that it is
refused where it does not belong. It grants nothing: it needs no signature.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

from flask import request
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.errors import Invalid
from orchestrator.tasks import digest

MAX_PAGE_SIZE = 200


class PageQuery(BaseModel):
    """The query of a list. Lists with filters extend it, naming each."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    page_size: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="At most so many of them.")
    page_token: str | None = Field(
        None, min_length=1, max_length=1000, description="`next_page_token` of the page before."
    )

    def filters(self) -> dict[str, Any]:
        """The filters that were given, by their names in the query."""
        paging = set(PageQuery.model_fields)
        return self.model_dump(mode="json", exclude=paging, exclude_none=True)

    def position(self) -> str | None:
        """Where this page begins; None at the start.

        Raises:
            Invalid: the token is none of this list with these filters.
        """
        if self.page_token is None:
            return None
        try:
            padded = self.page_token + "=" * (-len(self.page_token) % 4)
            scope, position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, TypeError, RecursionError):
            raise _bad_token() from None
        if scope != self._scope() or not isinstance(position, str):
            raise _bad_token()
        return position

    def answer(
        self, name: str, items: list[Any], following: str | None
    ) -> tuple[dict[str, Any], int, dict[str, str]]:
        """Body, status and headers of a page; `following` is the position of the next one."""
        if following is None:
            return {name: items}, 200, {}
        raw = json.dumps([self._scope(), following], separators=(",", ":")).encode()
        token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        query = urlencode(self.filters() | {"page_size": self.page_size, "page_token": token})
        headers = {"Link": f'<{request.path}?{query}>; rel="next"'}
        return {name: items, "next_page_token": token}, 200, headers

    def _scope(self) -> str:
        asked = json.dumps([request.path, self.filters()], sort_keys=True)
        return digest(asked)[:16]


@contextmanager
def positions() -> Iterator[None]:
    """Around the reading of a page: a position that the store refuses is a bad token.

    Raises:
        Invalid: it did.
    """
    try:
        yield
    except ValueError as error:
        raise _bad_token() from error


NextPageToken = Annotated[
    str | None,
    Field(
        description="Asks for the next page; missing on the last one. A page may be shorter than "
        "`page_size` and still have it.",
        exclude_if=lambda token: token is None,
    ),
]


def _bad_token() -> Invalid:
    detail = "is not a token of this list with these filters"
    return Invalid(errors=[{"parameter": "page_token", "detail": detail}])
