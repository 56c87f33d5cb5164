"""A receiver of Standard Webhooks (n8n can be one), as a side that is written to only.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from standardwebhooks import Webhook

from agents.data_sync.connector import Abilities, Document, Fault, Page, Values
from agents.data_sync.definitions import WebhookSide
from agents.data_sync.web import Refused as RefusedByOther
from agents.data_sync.web import asked, understood
from agents.outside import Outside
from orchestrator import TaskError

ROW_REFUSED: Final = frozenset({400, 404, 409, 413, 422})


class WebhookOut:
    """Tells each row as an event. `origin` names what the rows belong to: with a row's key it
    makes the event's id, by which the receiver knows a repetition."""

    abilities = Abilities(writes=True)

    def __init__(
        self,
        outside: Outside,
        side: WebhookSide,
        secret: str,
        now: Callable[[], dt.datetime],
        origin: str,
    ) -> None:
        self._outside = outside
        self._side = side
        self._now = now
        self._origin = origin
        try:
            self._webhook = Webhook(secret)
        except (ValueError, TypeError, RuntimeError):
            raise TaskError("secret_unusable", "The secret is no key of a webhook.") from None

    def read(self, cursor: Document | None) -> Iterator[Page]:
        raise NotImplementedError

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        raise NotImplementedError

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """POST each row, signed: {type, timestamp, data: {key, row}}."""
        refused = {}
        for key, values in rows.items():
            try:
                self._tell(key, values)
            except RefusedByOther as error:
                if error.status not in ROW_REFUSED:
                    raise error.error() from None
                refused[key] = Fault("", f"was refused with {error.status}")
        return refused

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    def _tell(self, key: str, values: Values) -> None:
        now = self._now()
        name = hashlib.sha256(f"{self._origin}\n{key}".encode()).hexdigest()[:32]
        event_id = f"evt_{name}"
        event = {
            "type": self._side.event,
            "timestamp": now.isoformat(),
            "data": {"key": key, "row": dict(values)},
        }
        content = json.dumps(event, ensure_ascii=False, default=str)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(event_id, now, content),
        }
        answer = asked(self._outside, "POST", self._side.url, content.encode(), headers)
        if 200 <= answer.status < 300:
            # Whatever it says: it was taken.
            return
        understood(answer)
