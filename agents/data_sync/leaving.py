"""What leaves the desk by this agent: quotes to the business's sinks, answers to MercadoLibre.

Keeps secret how an entry of the outbox becomes a row or an answer. A sink's entry says only which
version of which quote it is about; what is written is the quote as it is then, so nothing of a
customer is kept twice, and a version that has been overtaken is left to the entry that follows.
"""

import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.data_sync.connector import Connector
from agents.data_sync.definitions import Definitions, GoogleSheetSide, Sink
from agents.data_sync.mapping import Column, harmless, read_row, written_row
from agents.data_sync.mercadolibre import MAX_ANSWER_CHARS, MercadoLibre
from agents.data_sync.web import Refused as RefusedByOther
from agents.quotes import Quote, QuoteStore
from orchestrator import Outgoing, TaskError
from orchestrator.context import Sessions
from orchestrator.errors import NotFound, RetryLater
from orchestrator.outbox import Entry, NotNow, Outbox, Outcome, Refused, Sent, Unknown

SINK: Final = "sink"
MERCADOLIBRE: Final = "mercadolibre"
# What of a quote a sink may be given.
QUOTE_FIELDS: Final = (
    "code",
    "number",
    "version",
    "state",
    "customer_name",
    "customer_phone",
    "origin",
    "language",
    "product",
    "description",
    "total",
    "tax",
    "currency",
    "unit_price_per_m2",
    "created_at",
    "valid_until",
    "revision",
)


def quote_row(quote: Quote, origin: str) -> dict[str, Any]:
    """A quote as sinks may have it, under the names of `QUOTE_FIELDS`; `origin` is the channel
    that it was asked by."""
    return {
        "code": quote.code,
        "number": quote.number,
        "version": quote.version,
        "state": quote.state.value,
        "customer_name": quote.customer_name,
        "customer_phone": quote.customer_phone,
        "origin": origin,
        "language": quote.language,
        "product": quote.product,
        "description": quote.description,
        "total": format(quote.total, "f"),
        "tax": format(quote.tax, "f"),
        "currency": quote.currency,
        "unit_price_per_m2": quote.unit_price_per_m2,
        "created_at": quote.created_at.isoformat(),
        "valid_until": quote.valid_until.isoformat(),
        "revision": quote.revision,
    }


class Sinks:
    """The channel of quotes: the recipient is a sink's name."""

    # Rows are known by their key, events by their id.
    repeats_safely = True

    def __init__(
        self,
        definitions: Callable[[], Definitions],
        quotes: QuoteStore,
        sessions: Sessions,
        open_sink: Callable[[Sink, str], Connector],
    ) -> None:
        self._definitions = definitions
        self._quotes = quotes
        self._sessions = sessions
        self._open = open_sink

    def send(self, entry: Entry) -> Outcome:
        """Write the quote's row."""
        sink = self._definitions().quote_sinks.get(entry.recipient)
        if sink is None:
            return Refused("sink_gone", "The settings file names no such sink.")
        quote = self._quotes.get(entry.body["quote_id"])
        if quote is None:
            return Refused("quote_gone", "There is no such quote.")
        if quote.revision > entry.body["revision"]:
            return Sent("overtaken")
        try:
            row = self._row(sink, quote)
            refused = self._open(sink, entry.id).write({quote.code: row})
        except RetryLater as later:
            return NotNow(str(later.facts.get("reason", later.code)), later.detail, later.after_s)
        except TaskError as error:
            return Refused(error.task_code, error.detail)
        for fault in refused.values():
            return Refused("row_refused", f"{fault.column}: {fault.reason}")
        return Sent(quote.code)

    def _row(self, sink: Sink, quote: Quote) -> dict[str, Any]:
        origin = "direct"
        if quote.session is not None:
            try:
                origin = self._sessions.get(quote.session).channel
            except NotFound:
                origin = "erased"
        told = quote_row(quote, origin)
        flat = isinstance(sink.target, GoogleSheetSide)
        if not sink.columns:
            return {name: harmless(cell) if flat else cell for name, cell in told.items()}
        # Columns are named as the sink has them, and say which field of the quote they hold.
        record = read_row(told, quote.code, sink.columns, key="").record
        named = {
            name: Column(kind=column.kind, separator=column.separator, constant=column.constant)
            for name, column in sink.columns.items()
        }
        return written_row(record, named, flat=flat)


def tell_quotes(
    quotes: QuoteStore, outbox: Outbox, definitions: Definitions, limit: int
) -> dict[str, int]:
    """Give word of new and changed quotes to every sink, once for each version; repeatable.

    Returns {quotes, entries}.
    """
    untold = quotes.untold(limit)
    for quote in untold:
        for sink in definitions.quote_sinks:
            about = {"quote_id": quote.id, "code": quote.code, "revision": quote.revision}
            outgoing = Outgoing(SINK, sink, about, purpose="event")
            outbox.put(quote.id, f"{sink}.{quote.revision}", outgoing, quote.session)
        quotes.told(quote)
    return {"quotes": len(untold), "entries": len(untold) * len(definitions.quote_sinks)}


class Answers:
    """The channel of MercadoLibre's questions: the recipient is the session of a question.

    A question can be answered once: a repetition is refused there, and then told by its text.
    """

    repeats_safely = True

    def __init__(
        self, seller: Callable[[], MercadoLibre | None], sign: Callable[[str], str]
    ) -> None:
        self._seller = seller
        self._sign = sign

    def send(self, entry: Entry) -> Outcome:
        """Answer the question."""
        question = question_of(entry.recipient, self._sign)
        if question is None:
            return Refused("no_question", "This conversation is no question's.")
        text = _fitting(entry.body["text"])
        try:
            seller = self._seller()
            if seller is None:
                return Refused("channel_off", "The settings file names no seller.")
            try:
                seller.answer(question, text)
            except RefusedByOther as error:
                if seller.answered_with(question) == text:
                    return Sent(question)
                told: Mapping[str, Any] = error.data if isinstance(error.data, dict) else {}
                code = str(told.get("error") or error.status)[:60]
                return Refused(f"mercadolibre_{code}", f"MercadoLibre answered {error.status}.")
        except RetryLater as later:
            code = str(later.facts.get("reason", later.code))
            if code in ("not_answered", "answer_cut", "answer_unreadable"):
                return Unknown(code, later.detail)
            return NotNow(code, later.detail, later.after_s)
        except TaskError as error:
            return Refused(error.task_code, error.detail)
        return Sent(question)


def question_session(question_id: str, sign: Callable[[str], str]) -> str:
    """The session of a question. It cannot be made up by whoever names a session to the front
    door: an answer there would be an answer here."""
    return f"{MERCADOLIBRE}-{question_id}-{sign(f'question {question_id}')}"


def question_of(session_id: str, sign: Callable[[str], str]) -> str | None:
    """The question of a session, if it is one's."""
    kind, _, rest = session_id.partition("-")
    question, _, signature = rest.partition("-")
    if kind != MERCADOLIBRE or not question.isdecimal():
        return None
    expected = sign(f"question {question}")
    return question if hmac.compare_digest(signature.encode(), expected.encode()) else None


def _fitting(text: str) -> str:
    """A text as long as an answer may be, cut where a reader would pause."""
    if len(text) <= MAX_ANSWER_CHARS:
        return text
    cut = text[: MAX_ANSWER_CHARS - 1]
    pause = max(cut.rfind("\n"), cut.rfind(". "), cut.rfind(" "))
    return cut[: pause if pause > MAX_ANSWER_CHARS // 2 else len(cut)].rstrip() + "…"
