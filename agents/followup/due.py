"""Which silent customers should hear from us; pure."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agents.quotes import Quote
from orchestrator.context import Session


@dataclass(frozen=True)
class Due:
    """A session to follow up, and why: `kind` is one of `agents.messages.MessageKind`."""

    session: str
    kind: str
    quote: str | None
    silent: dt.timedelta


def find_due(
    sessions: Iterable[Session],
    newest_quotes: Mapping[str, Quote],
    *,
    now: dt.datetime,
    silence: dt.timedelta,
    expires_soon: dt.timedelta = dt.timedelta(days=2),
) -> list[Due]:
    """The sessions that have been silent for long enough, the longest silence first.

    Left out: sessions that a person has taken over, sessions without a single answered
    message, and those whose quote is answered or no longer valid.
    """
    due = []
    for session in sessions:
        silent = now - session.updated_at
        if silent < silence or session.owner != "bot" or session.seq == 0:
            continue
        quote = newest_quotes.get(session.id)
        if quote is None:
            due.append(Due(session.id, "conversation_idle", None, silent))
        elif quote.state.open and quote.valid_until > now:
            ends_soon = quote.valid_until - now < expires_soon
            kind = "quote_expiring" if ends_soon else "quote_sent"
            due.append(Due(session.id, kind, quote.code, silent))
    return sorted(due, key=lambda each: each.silent, reverse=True)
