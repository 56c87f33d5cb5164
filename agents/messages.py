"""Texts that agents write by themselves, in the customer's language.

Keeps secret where the texts are (`messages.yaml`, beside this file) and how a greeting is
put before them. What `generate_message` takes and gives is defined here, since more than
one agent can be asked for it and none knows the others.
"""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import yaml
from babel.dates import format_date
from pydantic import BaseModel, ConfigDict, Field

from agents.catalogue import Language
from agents.quotes import Quote
from agents.rewording import reworded
from agents.stores import stores_of
from orchestrator import TaskContext, TaskError
from orchestrator.errors import NotFound

TEXTS: Final = Path(__file__).with_name("messages.yaml")
MAX_CUSTOM_CHARS: Final = 1000
# What `tipo` is called by clients that speak English.
INTENTS: Final = {
    "cotizacion": "quote",
    "informacion": "information",
    "pregunta": "question",
    "seguimiento": "follow_up",
    "general": "general",
}

# "custom" is what a person wrote.
MessageKind = Literal[
    "quote_sent", "quote_expiring", "quote_accepted", "conversation_idle", "custom"
]


class MessageWanted(BaseModel):
    """Payload of `generate_message`. What is left out is taken from the session and its newest
    quote, where there are any. `text` is what a message of the kind "custom" says."""

    model_config = ConfigDict(extra="forbid")

    kind: MessageKind
    session_id: str | None = Field(None, min_length=1, max_length=200)
    language: Language | None = None
    name: str | None = Field(None, min_length=1, max_length=100)
    quote_code: str | None = Field(None, pattern=r"^[A-Z0-9-]{1,40}$")
    text: str | None = Field(None, min_length=1, max_length=MAX_CUSTOM_CHARS)


def text(key: str, language: Language, **values: str) -> str:
    """One text of `messages.yaml` with its gaps filled.

    Raises:
        KeyError: there is no such text, or a gap has no value.
    """
    return _texts()[key][language].format(**values)


def compose(
    kind: MessageKind,
    language: Language,
    *,
    name: str | None,
    quote_code: str | None,
    product: str | None = None,
    valid_until: str | None = None,
) -> str:
    """A message to a customer who has been silent, with a greeting.

    `valid_until` is a day, as it is written in the language.

    Raises:
        KeyError: the kind names a quote, and there is no code.
    """
    greeting = (
        text("greeting", language) if name is None else text("greeting_named", language, name=name)
    )
    gaps = {} if quote_code is None else {"quote_code": quote_code}
    gaps["about"] = "" if product is None else text("about_product", language, product=product)
    gaps["when"] = "" if valid_until is None else text("on_day", language, day=valid_until)
    return f"{greeting} {text(kind, language, **gaps)}"


def generate_message(context: TaskContext, wanted: MessageWanted) -> dict[str, Any]:
    """Write a follow-up message; nothing is sent.

    Returns {kind, language, text, values, quote_code, worded_by}: `values` fill the gaps of a
    WhatsApp template (name, then the quote's code, for a kind that has one); `worded_by` is
    "language_model" where one was of use, else "built_in".

    Raises:
        TaskError: `message_incomplete`, its fact `missing` naming what the kind needs.
    """
    quote, shared = None, {}
    if wanted.session_id is not None:
        quote = _newest_quote(context, wanted.session_id)
        shared = _shared_context(context, wanted.session_id)
    language: Language = (
        wanted.language or shared.get("language") or (quote.language if quote else "es")
    )
    name = wanted.name or shared.get("name") or (quote.customer_name if quote else None)
    quote_code = wanted.quote_code or (quote.code if quote else None)
    about = quote if quote is not None and quote.code == quote_code else None
    told: dict[str, Any] = {"kind": wanted.kind, "language": language, "quote_code": quote_code}
    told["values"] = [name or text("customer", language)]
    if wanted.kind == "custom":
        if wanted.text is None:
            raise _incomplete("text")
        told["values"].append(wanted.text)
        return told | {"text": wanted.text, "worded_by": "built_in"}
    try:
        written = compose(
            wanted.kind,
            language,
            name=name,
            quote_code=quote_code,
            # In the quote's own words, which are of its language.
            product=about.product if about and about.language == language else None,
            valid_until=_day(context, about.valid_until, language) if about else None,
        )
    except KeyError as gap:
        raise _incomplete(str(gap.args[0])) from None
    if wanted.kind != "conversation_idle" and quote_code is not None:
        told["values"].append(quote_code)
    other = None
    if context.engine.settings.llm_wording:
        stores = stores_of(context.engine)
        other = reworded(stores.model, written, stores.catalogues.current(), language)
    by = "built_in" if other is None else "language_model"
    # How to end such messages is nothing to be worded.
    said = f"{other or written} {text('no_more', language)}"
    return told | {"text": said, "worded_by": by}


def _incomplete(missing: str) -> TaskError:
    return TaskError("message_incomplete", "The message lacks what it is about.", missing=[missing])


def _day(context: TaskContext, moment: datetime, language: Language) -> str:
    local = moment.astimezone(ZoneInfo(context.engine.settings.business_zone))
    locale = {"es": "es_UY", "en": "en_US"}[language]
    shown: str = format_date(local.date(), format="long", locale=locale)
    return shown


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
