"""WhatsApp's webhook: what customers write there, and what became of what we sent.

Keeps secret Meta's envelope. A request is signed over its raw bytes; each message in it becomes
a task under the message's own id, so that Meta may repeat a request for days, whole or in
other parts, and nothing happens twice. It is stored, then answered, at once; the reply goes out
by the outbox. What cannot be read is left out: Meta would repeat the whole batch for ever.
"""

import datetime as dt
import hmac
import json
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import phonenumbers
from apiflask import APIBlueprint
from flask import Response, g, request
from pydantic import BaseModel, Field, ValidationError

from api.chat import TASK_TYPE, MessageRequest
from api.errors import ChatUnstaffed, Forbidden, Malformed
from api.inputs import raw_body
from api.promptness import prompt
from api.schemas import WebhookStored
from orchestrator import logs
from orchestrator.context import ordering_key
from orchestrator.engine import Engine
from orchestrator.errors import (
    Invalid,
    NoCapableAgent,
    NotFound,
    OrchestratorError,
    StoreUnavailable,
    Unavailable,
)
from orchestrator.logs import log
from orchestrator.outbox import RECEIPTS

CHANNEL = "whatsapp"
MEDIA_TYPE = "process_media"
SIGNATURE = "X-Hub-Signature-256"
# Meta sends up to 3 MB.
MAX_BODY_BYTES = 3 * 1024 * 1024
MAX_TEXT_CHARS = 10_000
CHALLENGE: dict[Any, Any] = {
    200: {
        "description": "The challenge.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
    403: "The verify token is another.",
    404: "WhatsApp is not set up here.",
}
Read = TypeVar("Read", bound=BaseModel)
MEDIA = ("image", "video", "audio", "voice", "document", "sticker", "location", "contacts")


class ChannelOff(NotFound):
    """The channel's secrets are not set: it is not there."""

    code = "channel_off"
    title = "WhatsApp is not set up here"


class NotAllStored(Unavailable):
    """Some messages of the batch could not be stored; the others are, and are not done twice."""

    code = "not_all_stored"
    title = "Not all messages could be stored: send them again"


class _Titled(BaseModel):
    title: str = ""


class _Interactive(BaseModel):
    button_reply: _Titled | None = None
    list_reply: _Titled | None = None


class _Worded(BaseModel):
    """Whatever may hold words: text.body, button.text, image.caption, reaction.emoji."""

    body: str = ""
    text: str = ""
    caption: str = ""
    emoji: str = ""


class Message(BaseModel):
    """What of a customer's message is read; all else is left alone."""

    id: Annotated[str, Field(min_length=1, max_length=500)]
    sender: Annotated[str, Field(alias="from", pattern=r"^\+?[0-9]{5,20}$")]
    timestamp: Annotated[int, Field(ge=0, lt=2**33)]
    type: str
    text: _Worded | None = None
    button: _Worded | None = None
    interactive: _Interactive | None = None
    image: _Worded | None = None
    video: _Worded | None = None
    document: _Worded | None = None
    reaction: _Worded | None = None

    def words(self) -> str:
        """What the customer said in words, if anything, as it can be stored."""
        if self.type == "interactive" and self.interactive:
            chosen = self.interactive.button_reply or self.interactive.list_reply
            said = chosen.title if chosen else ""
        else:
            holder = getattr(self, self.type, None) if self.type in _WORDED else None
            said = (holder.body or holder.text or holder.caption) if holder else ""
        return _storable(said)

    def medium(self) -> str | None:
        """What else than words it is, and None where words are all of it or it asks nothing."""
        if self.type in MEDIA:
            return self.type
        if self.type == "reaction":
            # Without an emoji one was taken back.
            return "reaction" if self.reaction and self.reaction.emoji else None
        # Of the system: a number changed, a product was shown.
        return None if self.type in (*_WORDED, "interactive", "system") else "unsupported"


_WORDED = ("text", "button", "image", "video", "document")


class _Error(BaseModel):
    code: int = 0


class Status(BaseModel):
    """What of a status is read."""

    id: Annotated[str, Field(min_length=1, max_length=500)]
    status: str
    timestamp: Annotated[int, Field(ge=0, lt=2**33)]
    biz_opaque_callback_data: Annotated[str, Field(max_length=512)] | None = None
    errors: list[_Error] = []


def routes(engine: Engine) -> APIBlueprint:
    """`GET` and `POST /api/whatsapp/webhook`, for Meta only: the signature lets in."""
    webhook = APIBlueprint("whatsapp", __name__, tag="WhatsApp")
    settings = engine.settings

    def secret() -> bytes:
        if not settings.whatsapp_receives or settings.whatsapp_app_secret is None:
            raise ChannelOff("Set WHATSAPP_APP_SECRET and WHATSAPP_VERIFY_TOKEN to turn it on.")
        return settings.whatsapp_app_secret.get_secret_value().encode()

    @webhook.get("/api/whatsapp/webhook")
    @webhook.doc(
        summary="Set up WhatsApp's webhook",
        responses=CHALLENGE,
    )
    def verify() -> Response:
        """Meta asks this once, when the webhook is set up."""
        secret()
        expected = settings.whatsapp_verify_token
        assert expected is not None
        shown = request.args.get("hub.verify_token", "")
        same = hmac.compare_digest(shown.encode(), expected.get_secret_value().encode())
        if request.args.get("hub.mode") != "subscribe" or not same:
            raise Forbidden("The verify token is another.")
        return Response(request.args.get("hub.challenge", ""), content_type="text/plain")

    @webhook.post("/api/whatsapp/webhook")
    @webhook.output(WebhookStored, description="Stored.")
    @webhook.doc(
        summary="Take WhatsApp's messages and statuses",
        responses={
            400: "The body is not JSON, or not all there.",
            403: "The signature is missing or wrong.",
            404: "WhatsApp is not set up here.",
            413: "The body is larger than 3 MB.",
            503: "Not all of it could be stored: send it again.",
        },
    )
    def receive() -> Any:
        """Messages and statuses of a batch: stored, then answered, at once."""
        key = secret()
        raw = raw_body(request, MAX_BODY_BYTES)
        expected = "sha256=" + hmac.digest(key, raw, "sha256").hex()
        shown = request.headers.get(SIGNATURE, "")
        if not hmac.compare_digest(shown.encode(errors="replace"), expected.encode()):
            raise Forbidden("The signature is missing or wrong.")
        g.caller = CHANNEL
        try:
            told = json.loads(raw)
        except (ValueError, RecursionError):
            raise Malformed("The body is not JSON.") from None
        values = list(_values(told, settings.whatsapp_phone_number_id))
        _store(engine, values)
        return {"status": "stored"}

    return webhook


def _store(engine: Engine, values: list[dict[str, Any]]) -> None:
    """Store all messages and statuses of a batch, in their order.

    Raises:
        Unavailable: some are not stored; those that are need not be left out next time.
    """
    missing = 0
    with prompt(engine):
        for value in values:
            for message in _read(Message, value.get("messages")):
                try:
                    _accept(engine, message)
                except NoCapableAgent:
                    raise ChatUnstaffed() from None
                except StoreUnavailable:
                    raise
                except Invalid as error:
                    # It would be no better next time.
                    log.warning("whatsapp.message_refused", code=error.code)
                except OrchestratorError as error:
                    log.warning("whatsapp.message_postponed", code=error.code)
                    missing += 1
            for status in _read(Status, value.get("statuses")):
                _note(engine, status)
    if missing:
        raise NotAllStored(missing=missing)


def _accept(engine: Engine, message: Message) -> None:
    """The tasks of a message: one for its words, one for what else it is."""
    words, medium = message.words(), message.medium()
    payload: dict[str, Any] = {"channel": CHANNEL}
    asked = []
    if words:
        asked.append((TASK_TYPE, payload | {"message": words}))
    if medium:
        asked.append((MEDIA_TYPE, payload | {"medium": medium}))
    if not asked:
        return
    phone = _e164(message.sender)

    def wanted(task_type: str, known: dict[str, Any], **more: Any) -> MessageRequest:
        return MessageRequest(
            type=task_type,
            payload=known,
            caller=CHANNEL,
            idempotency_key=message.id,
            sent=message.id,
            request_id=g.request_id,
            **more,
        )

    new = [each for each in asked if engine.store.by_idempotency_key(wanted(*each)) is None]
    if not new:
        return
    engine.declarations.capable(TASK_TYPE, ())
    for each in new:
        engine.admission.check(wanted(*each))
    at = min(dt.datetime.fromtimestamp(message.timestamp, dt.UTC), engine.clock.now())
    engine.contacts.heard_from(phone, CHANNEL, at)
    session = engine.sessions.open(None, phone, caller=CHANNEL, channel=CHANNEL, trusted=True)
    logs.about(session=logs.pseudonym(session.id))
    together = engine.sessions.on_busy(session) == "coalesce"
    for task_type, known in new:
        engine.coordinator.submit(
            wanted(
                task_type,
                known | {"phone": phone, "session_id": session.id},
                ordering_key=ordering_key(session.id),
                seq_after=session.seq,
            ),
            # Nobody waits on the line, and people send one thought in several messages.
            quiet_s=engine.settings.quiet_unwatched_ms / 1000 if together else 0.0,
        )


def _note(engine: Engine, status: Status) -> None:
    if status.status not in RECEIPTS:
        return
    reason = None
    if status.status == "failed":
        code = status.errors[0].code if status.errors else 0
        reason = {"code": f"whatsapp_{code}", "detail": f"WhatsApp gave it up, code {code}."}
    ours = engine.outbox.receipt(
        status.status,
        dt.datetime.fromtimestamp(status.timestamp, dt.UTC),
        reference=status.id,
        entry_id=status.biz_opaque_callback_data,
        reason=reason,
    )
    if not ours:
        log.info("whatsapp.status_of_others", status=status.status)


def _values(told: Any, phone_number_id: str | None) -> Iterator[dict[str, Any]]:
    """The values of entries' changes that are about messages to our number."""
    for entry in _listed(told, "entry"):
        for change in _listed(entry, "changes"):
            value = change.get("value")
            if change.get("field") != "messages" or not isinstance(value, dict):
                continue
            metadata = value.get("metadata")
            told_of = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
            if phone_number_id is None or told_of in (None, phone_number_id):
                yield value


def _listed(holder: Any, name: str) -> list[dict[str, Any]]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _read(model: type[Read], found: Any) -> Iterator[Read]:
    for each in found if isinstance(found, list) else []:
        try:
            yield model.model_validate(each)
        except ValidationError as error:
            fields = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
            log.warning("whatsapp.unreadable", kind=model.__name__, fields=fields[:10])


def _e164(sender: str) -> str:
    """WhatsApp writes numbers with the country code and without a plus."""
    sender = f"+{sender.lstrip('+')}"
    try:
        number = phonenumbers.parse(sender, None)
    except phonenumbers.NumberParseException:
        return sender
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _storable(text: str) -> str:
    """Without halves of characters and without control characters; cut to what is read."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = "".join(c for c in whole if unicodedata.category(c) != "Cc" or c in "\n\t")
    return kept.strip()[:MAX_TEXT_CHARS]
