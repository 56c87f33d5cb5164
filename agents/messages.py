"""Texts that agents write by themselves, in the customer's language.

Keeps secret where the texts are (`messages.yaml`, beside this file) and how a greeting is
put before them. What `generate_message` takes and gives is defined here, since more than
one agent can be asked for it and none knows the others.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from agents.catalogue import Language
from agents.quotes import Quote
from agents.stores import stores_of
from orchestrator import TaskContext, TaskError
from orchestrator.errors import NotFound

TEXTS: Final = Path(__file__).with_name("messages.yaml")

MessageKind = Literal["quote_sent", "quote_expiring", "conversation_idle"]


class MessageWanted(BaseModel):
    """Payload of `generate_message`. What is left out is taken from the session and its newest
    quote, where there are any."""

    model_config = ConfigDict(extra="forbid")

    kind: MessageKind
    session_id: str | None = Field(None, min_length=1, max_length=200)
    language: Language | None = None
    name: str | None = Field(None, min_length=1, max_length=100)
    quote_code: str | None = Field(None, pattern=r"^[A-Z0-9-]{1,40}$")


def text(key: str, language: Language, **values: str) -> str:
    """One text of `messages.yaml` with its gaps filled.

    Raises:
        KeyError: there is no such text, or a gap has no value.
    """
    return _texts()[key][language].format(**values)


def compose(
    kind: MessageKind, language: Language, *, name: str | None, quote_code: str | None
) -> str:
    """A message to a customer who has been silent, with a greeting.

    Raises:
        KeyError: the kind names a quote, and there is no code.
    """
    greeting = (
        text("greeting", language) if name is None else text("greeting_named", language, name=name)
    )
    gaps = {} if quote_code is None else {"quote_code": quote_code}
    return f"{greeting} {text(kind, language, **gaps)}"


def generate_message(context: TaskContext, wanted: MessageWanted) -> dict[str, Any]:
    """Write a follow-up message; nothing is sent.

    Returns {kind, language, text, quote_code}.

    Raises:
        TaskError: `message_incomplete`, its fact `missing` naming what the kind needs.
    """
    quote, shared = None, {}
    if wanted.session_id is not None:
        quote = _newest_quote(context, wanted.session_id)
        shared = _shared_context(context, wanted.session_id)
    language = wanted.language or shared.get("language") or (quote.language if quote else "es")
    name = wanted.name or shared.get("name") or (quote.customer_name if quote else None)
    quote_code = wanted.quote_code or (quote.code if quote else None)
    try:
        written = compose(wanted.kind, language, name=name, quote_code=quote_code)
    except KeyError as gap:
        raise TaskError(
            "message_incomplete", "The message lacks what it is about.", missing=[gap.args[0]]
        ) from None
    return {
        "kind": wanted.kind,
        "language": language,
        "text": written,
        "quote_code": quote_code,
    }


def _newest_quote(context: TaskContext, session_id: str) -> Quote | None:
    return stores_of(context.engine).quotes.newest_of([session_id]).get(session_id)


def _shared_context(context: TaskContext, session_id: str) -> dict[str, Any]:
    """What agents know of the customer; nothing where there is no such session."""
    try:
        shared: dict[str, Any] = context.engine.sessions.get(session_id).context["shared"]
    except NotFound:
        return {}
    return shared


@lru_cache(maxsize=1)
def _texts() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    return texts
