"""The ways out to customers and to the business's own flows.

Keeps secret how WhatsApp's Cloud API and a Standard Webhooks receiver are spoken to, and what
their answers mean: taken, surely not taken, or nobody knows.

| channel  | recipient          | an unknown outcome                                     |
| -------- | ------------------ | ------------------------------------------------------ |
| whatsapp | phone in E.164     | is uncertain: WhatsApp would deliver a repetition      |
| n8n      | session that it is about | is sent again: the receiver knows it by `webhook-id` |
| webhook  | URL                | as n8n                                                 |
| local    | session            | is said again: the page shows a message once           |
"""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Final

from standardwebhooks import Webhook

from agents.outside import Answer, NotAllowed, NotAnswered, NotAsked, Outside
from orchestrator.clock import Clock
from orchestrator.contacts import Contacts
from orchestrator.context import ordering_key
from orchestrator.outbox import Channel, Entry, NotNow, Outcome, Refused, Sent, Unknown
from orchestrator.replies import Replies
from orchestrator.settings import Settings, pairs

Document = dict[str, Any]

# Meta allows free text for 24 hours after the customer last wrote; a message needs a while.
WINDOW: Final = dt.timedelta(hours=24) - dt.timedelta(minutes=1)
OUTSIDE_WINDOW: Final = 131047
# Codes that mean "not now", whatever the HTTP status: limits of the app, the account, the
# number, the pair; services of theirs that are down.
NOT_NOW: Final = frozenset(
    {1, 2, 4, 17, 80007, 130429, 131000, 131016, 131048, 131056, 131057, 133004}
)
MAX_PARAMETER: Final = 1000


class WhatsApp:
    """The Cloud API. Nothing in it recognises a message that is sent twice."""

    repeats_safely = False

    def __init__(
        self, settings: Settings, outside: Outside, contacts: Contacts, clock: Clock
    ) -> None:
        token = settings.whatsapp_access_token
        assert token is not None
        self._url = f"{settings.whatsapp_api_url}/{settings.whatsapp_phone_number_id}/messages"
        self._headers = {
            "Authorization": f"Bearer {token.get_secret_value()}",
            "Content-Type": "application/json",
        }
        self._templates = pairs(settings.whatsapp_templates)
        self._languages = pairs(settings.whatsapp_template_languages)
        self._outside = outside
        self._contacts = contacts
        self._clock = clock

    def send(self, entry: Entry) -> Outcome:
        """Send text, or a template where the customer was silent for too long."""
        template = self._template(entry.body)
        if self._window_is_over(entry):
            if template is None:
                return Refused("outside_window", "Silent for 24 hours, and there is no template.")
            said: Document = {"type": "template", "template": template}
        else:
            text = {"preview_url": False, "body": entry.body["text"]}
            said = {"type": "text", "text": text}
        message = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": entry.recipient.removeprefix("+"),
            # Comes back with each status: so also an uncertain message is found again.
            "biz_opaque_callback_data": entry.id,
            **said,
        }
        content = json.dumps(message, ensure_ascii=False).encode()
        outcome = _asked(self._outside, self._url, content, self._headers, whatsapp_outcome)
        if isinstance(outcome, Refused) and outcome.code == "outside_window" and template:
            # Meta's clock decides. Nothing was sent, so a template may follow.
            body = entry.body | {"outside_window": True}
            return NotNow(outcome.code, outcome.detail, after_s=0.0, body=body)
        return outcome

    def _window_is_over(self, entry: Entry) -> bool:
        if entry.body.get("outside_window"):
            return True
        heard = self._contacts.last_heard(entry.recipient, "whatsapp")
        return heard is None or self._clock.now() - heard > WINDOW

    def _template(self, body: Document) -> Document | None:
        name = self._templates.get(body.get("kind", "reply"))
        if name is None:
            return None
        language = body.get("language", "es")
        template: Document = {
            "name": name,
            "language": {"code": self._languages.get(language, language)},
        }
        # Meta refuses line breaks and runs of blanks in a parameter.
        values = [" ".join(str(value).split())[:MAX_PARAMETER] for value in body.get("values", ())]
        if values:
            parameters = [{"type": "text", "text": value} for value in values]
            template["components"] = [{"type": "body", "parameters": parameters}]
        return template


def whatsapp_outcome(answer: Answer) -> Outcome:
    """What the Graph API's answer to a message means."""
    told = _json(answer.body)
    if 200 <= answer.status < 300:
        messages = told.get("messages")
        first = messages[0] if isinstance(messages, list) and messages else None
        reference = first.get("id") if isinstance(first, dict) else None
        if isinstance(reference, str):
            return Sent(reference)
        return Unknown("unreadable_answer", "Taken, it seems, but the answer is not WhatsApp's.")
    error = told.get("error")
    error = error if isinstance(error, dict) else {}
    code = error.get("code")
    # The title of an error; what else it says may quote a number.
    detail = f"WhatsApp answered {answer.status}" + (f", code {code}." if code else ".")
    if answer.status in (502, 504) and not error:
        return Unknown("gateway", detail)
    if code == OUTSIDE_WINDOW:
        return Refused("outside_window", detail)
    if answer.status == 429 or answer.status >= 500 or code in NOT_NOW:
        return NotNow(f"whatsapp_{code or answer.status}", detail, answer.retry_after_s)
    if answer.status == 401 or code == 190:
        return Refused("access_token_refused", detail)
    return Refused(f"whatsapp_{code or answer.status}", detail)


class N8n:
    """A receiver of Standard Webhooks, which n8n can be: it knows a repetition by its id."""

    repeats_safely = True

    def __init__(
        self, settings: Settings, outside: Outside, clock: Clock, *, anywhere: bool = False
    ) -> None:
        url, secret = settings.n8n_webhook_url, settings.n8n_webhook_secret
        assert secret is not None
        # None: where the entry's recipient says.
        self._url = None if anywhere or url is None else url.get_secret_value()
        self._webhook = Webhook(secret.get_secret_value())
        self._outside = outside
        self._clock = clock

    def send(self, entry: Entry) -> Outcome:
        """Tell an event."""
        content = json.dumps(entry.body, ensure_ascii=False)
        now = self._clock.now()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": entry.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(entry.id, now, content),
        }
        url = self._url or entry.recipient
        return _asked(self._outside, url, content.encode(), headers, webhook_outcome)


def webhook_outcome(answer: Answer) -> Outcome:
    """What a receiver's answer means, as Standard Webhooks has it: only 2xx is taken, and 410
    says that nobody will ever listen there again."""
    if 200 <= answer.status < 300:
        return Sent()
    detail = f"The receiver answered {answer.status}."
    if answer.status == 410:
        return Refused("receiver_gone", detail)
    return NotNow(f"receiver_{answer.status}", detail, answer.retry_after_s)


class Local:
    """The desk's own page. What it shows was committed to the session with the entry; sending
    wakes the pages that are open, so that they read it now."""

    repeats_safely = True

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    def send(self, entry: Entry) -> Outcome:
        """Tell who watches the session that there is something to read."""
        if entry.session_id is not None:
            self._replies.announce_news(ordering_key(entry.session_id))
        return Sent()


def channels(
    settings: Settings, contacts: Contacts, clock: Clock, outside: Outside, replies: Replies
) -> dict[str, Channel]:
    """The channels that the settings turn on, by name; the desk's own page always."""
    on: dict[str, Channel] = {"local": Local(replies)}
    if settings.whatsapp_sends:
        on["whatsapp"] = WhatsApp(settings, outside, contacts, clock)
    if settings.n8n_told:
        on["n8n"] = N8n(settings, outside, clock)
    if settings.n8n_webhook_secret is not None:
        on["webhook"] = N8n(settings, outside, clock, anywhere=True)
    return on


def _asked(
    outside: Outside,
    url: str,
    content: bytes,
    headers: dict[str, str],
    meaning: Callable[[Answer], Outcome],
) -> Outcome:
    try:
        answer = outside.ask("POST", url, content=content, headers=headers)
    except NotAllowed as error:
        return Refused(error.code, error.detail)
    except NotAsked as error:
        return NotNow(error.code, error.detail)
    except NotAnswered as error:
        return Unknown(error.code, error.detail)
    return meaning(answer)


def _json(body: bytes) -> Document:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
