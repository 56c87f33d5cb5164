"""What the routes of reports take and give, with an example of each."""

import datetime as dt
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.pages import NextPageToken, PageQuery
from api.schemas import Moment, Strict
from orchestrator.phones import e164

Document = dict[str, Any]
Kind = Literal["daily", "weekly", "asked"]
Wants = Literal["daily", "weekly", "alerts"]
Language = Literal["es", "en"]

_URL = re.compile(r"https?://[!-~]{1,480}")
REPORT_ID = "019ab7d0a1b40007d3f5e6a718293b4c"
SUBSCRIPTION_ID = "019ab7d1c2d500089e8f7a6b5c4d3e2f"


class ReportRequest(Strict):
    """Which report to make: the last whole day or week of the business, or a time."""

    # Times come as text.
    model_config = ConfigDict(strict=False, extra="forbid", hide_input_in_errors=True)

    kind: Kind = Field("asked", description="`asked` is the time from `since` to `until`.")
    since: Moment | None = Field(
        None, description="From the hour of this time on; needed for `asked`, and for it alone."
    )
    until: Moment | None = Field(
        None, description="To before this time; without it, or when it is still to come, to now."
    )

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.kind == "asked" and self.since is None:
            raise ValueError("since is needed, unless kind is daily or weekly")
        if self.kind != "asked" and (self.since is not None or self.until is not None):
            raise ValueError("a daily or weekly report has its own time")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until must be after since")
        return self

    def payload(self) -> Document:
        """The same as the payload of the task."""
        return self.model_dump(mode="json", exclude_none=True)


class ReportQuery(PageQuery):
    """Which reports."""

    kind: Kind | None = Field(None, description="Only those of this kind.")
    since: Moment | None = Field(None, description="Made at this time or later.")


class ReportLanguage(BaseModel):
    """In which language a report is shown."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    language: Language = Field("es", description="Of its texts and numbers.")


class ReportNamed(BaseModel):
    """A report, without its figures."""

    id: str
    kind: Kind
    since: dt.datetime
    until: dt.datetime
    created_at: dt.datetime


class ReportList(BaseModel):
    """A page of reports, the newest first."""

    reports: list[ReportNamed]
    next_page_token: NextPageToken = None


class Finding(BaseModel):
    """A sentence, and the figures that it rests on."""

    code: str
    tone: Literal["good", "bad", "neutral"]
    figures: list[Document] = Field(description="[{figure, value}], named by their path.")
    text: dict[Language, str]


class Report(ReportNamed):
    """A report: docs/analytics.md tells what each figure is."""

    figures: Document = Field(
        description="Measures with their value, what it was before (null where that time was not "
        "counted whole), and by channel, product, agent; funnel, money, and each day. Ratios are "
        "shares of 1, times seconds, money strings."
    )
    insights: list[Finding]
    page: str = Field(description="Where it is as a page.")
    pdf: str
    csv: str


class SubscriptionRequest(Strict):
    """Who wants to be told."""

    wants: Wants = Field(description="The report of each day, of each week, or alerts.")
    channel: Literal["webhook", "n8n", "whatsapp"]
    recipient: str = Field(
        "",
        max_length=500,
        description="URL of a webhook, or a phone of WhatsApp; nothing for n8n.",
    )
    language: Language = "es"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.channel == "webhook" and not _URL.fullmatch(self.recipient):
            raise ValueError("recipient must be a URL that begins with https:// or http://")
        if self.channel == "whatsapp":
            try:
                e164(self.recipient)
            except ValueError as error:
                raise ValueError(f"recipient {error}") from None
        return self


class Subscription(BaseModel):
    """Who is told of what."""

    id: str
    wants: Wants
    channel: Literal["webhook", "n8n", "whatsapp"]
    recipient: str
    language: Language
    created_at: dt.datetime


class Subscriptions(BaseModel):
    """All subscriptions, the newest first."""

    subscriptions: list[Subscription]


class Unsubscribed(BaseModel):
    """What came of it."""

    removed: bool = Field(description="False where there was none.")


class AlertQuery(PageQuery):
    """Which alerts; filters may be combined."""

    state: Literal["open", "resolved"] | None = Field(None, description="Only these.")
    watch: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] | None = Field(
        None, description="Only those of this number."
    )
    since: Moment | None = Field(None, description="Begun at this time or later.")


class Alert(BaseModel):
    """A number that is not what it usually is at that hour of the week."""

    id: str
    watch: str = Field(description="What is watched; docs/analytics.md lists them.")
    part: str | None = Field(description="Of which agent, where it is watched by agent.")
    state: Literal["open", "resolved"]
    period: Literal["hour", "day"]
    began_at: dt.datetime = Field(description="The beginning of the period that it began with.")
    value: float
    expected: float
    low: float = Field(description="Usual is from here")
    high: float = Field(description="to here.")
    unit: Literal["count", "seconds", "share", "level", "rare"]
    look_at: str
    text: dict[Language, str] = Field(description="What it is, and where to look.")
    seen_at: dt.datetime = Field(description="The last period in which it was still so.")
    resolved_at: dt.datetime | None


class AlertList(BaseModel):
    """A page of alerts, the newest first."""

    alerts: list[Alert]
    next_page_token: NextPageToken = None


_NAMED: Document = {
    "id": REPORT_ID,
    "kind": "weekly",
    "since": "2026-11-16T03:00:00+00:00",
    "until": "2026-11-23T03:00:00+00:00",
    "created_at": "2026-11-23T09:40:02.118000+00:00",
}
_SUBSCRIPTION: Document = {
    "id": SUBSCRIPTION_ID,
    "wants": "weekly",
    "channel": "webhook",
    "recipient": "https://owner.example/reports",
    "language": "es",
    "created_at": "2026-11-20T15:12:44.020000+00:00",
}
EXAMPLES: Document = {
    "ReportRequest": {"since": "2026-11-16T03:00:00Z", "until": "2026-11-23T03:00:00Z"},
    "ReportList": {"reports": [_NAMED]},
    "Report": _NAMED
    | {
        "figures": {
            "since": _NAMED["since"],
            "until": _NAMED["until"],
            "zone": "America/Montevideo",
            "measures": {
                "conversion": {
                    "unit": "ratio",
                    "value": 0.31,
                    "before": 0.22,
                    "by": {"channel": {"web": 0.29, "whatsapp": 0.34}},
                }
            },
            "funnel": {
                "sessions": 420,
                "sessions_asked": 311,
                "sessions_offered": 246,
                "sessions_accepted": 77,
            },
            "money": {"UYU": {"quoted": "2140500.00", "won": "640250.00", "products": {}}},
            "days": [],
        },
        "insights": [
            {
                "code": "conversion_up",
                "tone": "good",
                "figures": [{"figure": "measures.quotes_accepted.value", "value": 77}],
                "text": {
                    "es": "De cada cien cotizaciones se aceptaron 31; antes eran 22.",
                    "en": "Of a hundred quotes 31 were accepted; it was 22 before.",
                },
            }
        ],
        "page": f"/api/reports/{REPORT_ID}.html",
        "pdf": f"/api/reports/{REPORT_ID}.pdf",
        "csv": f"/api/reports/{REPORT_ID}.csv",
    },
    "SubscriptionRequest": {
        name: _SUBSCRIPTION[name] for name in ("wants", "channel", "recipient", "language")
    },
    "Subscription": _SUBSCRIPTION,
    "Subscriptions": {"subscriptions": [_SUBSCRIPTION]},
    "Unsubscribed": {"removed": True},
    "AlertList": {
        "alerts": [
            {
                "id": "019ab7d3e50089f1c2d3e4a5b6c7d8e9",
                "watch": "answer_p50",
                "part": None,
                "state": "open",
                "period": "hour",
                "began_at": "2026-11-24T18:00:00+00:00",
                "value": 9.4,
                "expected": 2.1,
                "low": 1.2,
                "high": 3.7,
                "unit": "seconds",
                "look_at": "answers",
                "text": {
                    "es": "Respuesta mediana: 9,4 s; lo habitual es de 1,2 s a 3,7 s. Mire…",
                    "en": "Median answer: 9.4 s; usual is 1.2 s to 3.7 s. See…",
                },
                "seen_at": "2026-11-24T19:00:00+00:00",
                "resolved_at": None,
            }
        ]
    },
}
