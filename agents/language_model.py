"""The optional language model: any endpoint that speaks OpenAI's chat completions.

Keeps secret how it is spoken to, what it may spend, and when it is left alone. It never
weakens the desk: whatever goes wrong (an outage, a slow or invalid answer, the day's budget
spent) the answer is None, soon, and the caller goes on without it. What it says is
validated against the caller's own type; what it may be believed is the caller's matter.

Collection `model_spending`, one document per UTC day:

    _id         "2026-11-24"
    tokens      read and written that day, as the endpoint counts them
    expire_at   a month later
"""

import datetime as dt
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.logs import log
from orchestrator.settings import Settings
from orchestrator.tasks import Document, ensure_index, store_errors

if TYPE_CHECKING:
    from openai import OpenAI

Shape = TypeVar("Shape", bound=BaseModel)

CAPABILITY: Final = "llm"
# After a failure the next customers do not wait for another one.
REST_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_ANSWER_TOKENS: Final = 1_500  # some models think in tokens before they answer
SPENDING_KEPT: Final = dt.timedelta(days=31)


class _TooMuch(Exception):
    """An answer over the size limit, or one that trickles in past the time limit."""


class _BoundedStream(httpx2.SyncByteStream):
    """A body that ends in an error where it is too long or takes too long."""

    def __init__(self, stream: httpx2.SyncByteStream, clock: Clock, until: float) -> None:
        self._stream = stream
        self._clock = clock
        self._until = until

    def __iter__(self) -> Any:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES or self._clock.monotonic() > self._until:
                raise _TooMuch()
            yield chunk

    def close(self) -> None:
        self._stream.close()


class _BoundedTransport(httpx2.HTTPTransport):
    """httpx2 limits the wait for each piece of an answer; this limits the whole of it."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        super().__init__()
        self._clock = clock
        self._timeout_s = timeout_s

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        until = self._clock.monotonic() + self._timeout_s
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _BoundedStream(response.stream, self._clock, until)
        return response


class LanguageModel:
    """One per process. Thread-safe; connects to nothing before the first question."""

    def __init__(self, database: Database[Document], clock: Clock, settings: Settings) -> None:
        self._spending = database["model_spending"]
        self._clock = clock
        self._settings = settings
        self._lock = threading.Lock()
        self._client: OpenAI | None = None
        self._rests_until = float("-inf")

    def ensure_indexes(self) -> None:
        """Make the index by which old days go."""
        ensure_index(self._spending, "expiry", "expire_at", expireAfterSeconds=0)

    def ask(self, purpose: str, instructions: str, data: str, shape: type[Shape]) -> Shape | None:
        """What the model makes of `data`, in the given shape; None where it gave nothing usable.

        `instructions` are ours, `data` may be a customer's: it goes in a message of its own.
        `purpose` is a word for the log. Takes at most the time that the settings allow.

        Raises:
            StoreUnavailable: the day's spending cannot be read or written.
        """
        if not self._settings.llm_configured or self._clock.monotonic() < self._rests_until:
            return None
        day = self._clock.now().date().isoformat()
        if self._spent(day) >= self._settings.llm_daily_tokens:
            log.warning("model.budget_spent", purpose=purpose)
            return None
        # A third of what a worker loads at its start, and most have no model.
        from openai import OpenAIError

        began = self._clock.monotonic()
        try:
            completion = self._open().chat.completions.parse(
                model=self._settings.openai_model,
                messages=[
                    {"role": "system", "content": instructions},
                    {"role": "user", "content": data},
                ],
                response_format=shape,
                max_completion_tokens=MAX_ANSWER_TOKENS,
            )
            answer = completion.choices[0].message.parsed if completion.choices else None
        except ValidationError:
            # Counts for nothing against the endpoint: it answers, only not as asked.
            self._spend(day, 0)
            log.warning("model.invalid", purpose=purpose)
            return None
        except (OpenAIError, httpx2.HTTPError, _TooMuch, ValueError) as error:
            self._rests_until = self._clock.monotonic() + REST_S
            log.warning("model.failed", purpose=purpose, error=type(error).__name__)
            return None
        self._spend(day, completion.usage.total_tokens if completion.usage else 0)
        log.info(
            "model.answered" if answer is not None else "model.invalid",
            purpose=purpose,
            ms=round((self._clock.monotonic() - began) * 1000),
        )
        return answer

    def _open(self) -> "OpenAI":
        from openai import OpenAI

        with self._lock:
            if self._client is None:
                timeout_s = self._settings.llm_timeout_s
                key = self._settings.openai_api_key
                self._client = OpenAI(
                    # Local servers want none, and the client insists on some.
                    api_key=key.get_secret_value() if key else "none",
                    base_url=self._settings.openai_base_url,
                    max_retries=0,
                    http_client=httpx2.Client(
                        timeout=timeout_s,
                        transport=_BoundedTransport(self._clock, timeout_s),
                        follow_redirects=False,
                    ),
                )
            return self._client

    def _spent(self, day: str) -> int:
        with store_errors():
            spent = self._spending.find_one({"_id": day})
        return 0 if spent is None else int(spent["tokens"])

    def _spend(self, day: str, counted: int) -> None:
        # An endpoint that does not count is taken to have used all that it was allowed.
        tokens = counted or MAX_ANSWER_TOKENS
        with store_errors():
            if self._spending.update_one({"_id": day}, {"$inc": {"tokens": tokens}}).matched_count:
                return
            first = {"_id": day, "tokens": tokens, "expire_at": self._clock.now() + SPENDING_KEPT}
            try:
                self._spending.insert_one(first)
            except DuplicateKeyError:
                self._spending.update_one({"_id": day}, {"$inc": {"tokens": tokens}})
