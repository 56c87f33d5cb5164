"""Reports as they are kept: made once, shown as page, PDF, CSV or JSON, told to who subscribes.

Keeps secret how a report is made and told once however often its task runs (its id is the
task's, so the insert is the commit point; what leaves is in the outbox under that id), and when
the regular ones are due: each is a timer.

Collection `reports`, one document per report:

    _id            id of the task that made it; rises with time
    kind           "daily" | "weekly" | "asked"
    since, until   its time
    figures        `figures.figures`
    insights       [{code, tone, figures, text: {es, en}}]
    created_at
    expire_at      `Reports.let_go` removes it then, with its files

Collection `report_subscriptions`, one document per subscription, until it is removed:

    _id            rises with time
    wants          "daily" | "weekly" | "alerts"
    channel        "webhook" | "n8n" | "whatsapp"
    recipient      a URL, "reports", or a phone in E.164
    language       "es" | "en"
    created_at

Written by this module only; the front door reads both as the analytics agent declares them.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from agents.analytics.figures import as_csv
from agents.analytics.insights import Insight, named
from agents.analytics.layout import layout
from agents.analytics.page import page
from agents.analytics.pdf import pdf
from agents.analytics.wording import LOCALES, Words
from agents.business import Business
from agents.catalogue import Catalogue, Language
from orchestrator.clock import Clock
from orchestrator.declarations import Resource
from orchestrator.files import Files
from orchestrator.outbox import Outbox, Outgoing
from orchestrator.settings import Settings
from orchestrator.tasks import Request, Task, ensure_index, store_errors
from orchestrator.timers import Timers

Document = dict[str, Any]
Kind = Literal["daily", "weekly", "asked"]
Wants = Literal["daily", "weekly", "alerts"]
Format = Literal["html", "pdf", "csv"]

ONE_DAY: Final = dt.timedelta(days=1)
TYPES: Final[dict[Format, str]] = {
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "csv": "text/csv; charset=utf-8",
}
MAX_SUBSCRIPTIONS: Final = 100

RESOURCES: Final = (
    Resource("reports", "reports", ("kind", "since", "until", "created_at"), ("kind",)),
    Resource(
        "report",
        "reports",
        ("kind", "since", "until", "created_at", "figures", "insights"),
    ),
    Resource(
        "report_subscriptions",
        "report_subscriptions",
        ("wants", "channel", "recipient", "language", "created_at"),
    ),
)


@dataclass(frozen=True)
class Subscription:
    """Who is told of what, by which way, in which language."""

    id: str
    wants: Wants
    channel: str
    recipient: str
    language: Language


def period_of(kind: Kind, now: dt.datetime, zone: ZoneInfo) -> tuple[dt.datetime, dt.datetime]:
    """The last whole day, or week from Monday on, of the business before a moment."""
    today = now.astimezone(zone).date()
    if kind == "daily":
        first, after = today - ONE_DAY, today
    else:
        after = today - today.weekday() * ONE_DAY
        first = after - 7 * ONE_DAY
    begins, ends = (dt.datetime.combine(day, dt.time(), zone) for day in (first, after))
    return begins.astimezone(dt.UTC), ends.astimezone(dt.UTC)


class Reports:
    """Every method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        files: Files,
        outbox: Outbox,
        settings: Settings,
    ) -> None:
        self._reports = database["reports"]
        self._subscriptions = database["report_subscriptions"]
        self._clock = clock
        self._files = files
        self._outbox = outbox
        self._kept = dt.timedelta(days=settings.analytics_retention_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here, or a list at the front door, relies on."""
        ensure_index(self._reports, "list_kind", "kind _id")
        # Not by MongoDB itself: its files have to go with it.
        ensure_index(self._reports, "over", "expire_at")
        ensure_index(self._subscriptions, "wanted", "wants")

    # -- reports ------------------------------------------------------------------------

    def keep(
        self,
        task: Task,
        kind: Kind,
        told: Document,
        found: list[Insight],
        catalogue: Catalogue,
    ) -> Document:
        """Keep a report once, under its task's id; returns it as it is kept."""
        known = self.get(task.id)
        if known is not None:
            return known
        now = self._clock.now()
        report = {
            "_id": task.id,
            "kind": kind,
            "since": dt.datetime.fromisoformat(told["since"]),
            "until": dt.datetime.fromisoformat(told["until"]),
            "figures": told,
            "insights": [
                {
                    "code": each.code,
                    "tone": each.tone,
                    "values": each.values,
                    # Their names hold dots.
                    "figures": [{"figure": k, "value": v} for k, v in each.figures.items()],
                    "text": {
                        language: Words(language).insight(
                            named(each, names_of(catalogue, language))
                        )
                        for language in LOCALES
                    },
                }
                for each in found
            ],
            "created_at": now,
            "expire_at": now + self._kept,
        }
        try:
            with store_errors():
                self._reports.insert_one(report)
        except DuplicateKeyError:
            return self.get(task.id) or report
        return report

    def get(self, report_id: str) -> Document | None:
        """A report as it is kept."""
        with store_errors():
            return self._reports.find_one({"_id": report_id})

    def render(
        self,
        report: Document,
        form: Format,
        language: Language,
        business: Business,
        catalogue: Catalogue,
    ) -> str:
        """Make a report's file, and keep it; returns the file's id."""
        words = Words(language)
        told = report["figures"]
        if form == "csv":
            content = as_csv(told).encode()
        else:
            found = [
                Insight(
                    each["code"],
                    each["tone"],
                    each["values"],
                    {one["figure"]: one["value"] for one in each["figures"]},
                )
                for each in report["insights"]
            ]
            names = names_of(catalogue, language)
            shown = layout(told, found, business, words, names, report["created_at"])
            content = page(shown, language).encode() if form == "html" else pdf(shown, words)
        file_id = file_of(report["_id"], form, language)
        name = f"{report['since'].date().isoformat()}-{report['kind']}.{form}"
        self._files.keep(file_id, content, content_type=TYPES[form], name=name)
        return file_id

    def let_go(self, limit: int = 50) -> int:
        """Remove reports that are over, with their files; returns how many."""
        with store_errors():
            over = list(
                self._reports.find({"expire_at": {"$lt": self._clock.now()}}, {"_id": 1}).limit(
                    limit
                )
            )
            for report in over:
                self._files.remove_of(report["_id"])
                self._reports.delete_one({"_id": report["_id"]})
        return len(over)

    # -- who is told --------------------------------------------------------------------

    def subscribe(self, new: Subscription) -> Subscription | None:
        """Keep a subscription once; None where there are too many."""
        document = dict(vars(new))
        document["_id"] = document.pop("id")
        with store_errors():
            same = {name: document[name] for name in ("wants", "channel", "recipient")}
            for known in self._subscriptions.find({"wants": new.wants}):
                if all(known[name] == value for name, value in same.items()):
                    return _subscription(known)
            if self._subscriptions.count_documents({}) >= MAX_SUBSCRIPTIONS:
                return None
            try:
                self._subscriptions.insert_one(document | {"created_at": self._clock.now()})
            except DuplicateKeyError:
                return new
        return new

    def unsubscribe(self, subscription_id: str) -> bool:
        """Remove a subscription; False where there was none."""
        with store_errors():
            return self._subscriptions.delete_one({"_id": subscription_id}).deleted_count == 1

    def who_wants(self, what: Wants) -> list[Subscription]:
        """Who is to be told, the oldest subscription first."""
        with store_errors():
            found = list(self._subscriptions.find({"wants": what}))
        return [_subscription(each) for each in sorted(found, key=lambda each: str(each["_id"]))]

    def tell(self, task: Task, report: Document) -> int:
        """Tell a regular report to who wants it, once each; returns to how many."""
        wanted = self.who_wants(report["kind"])
        for each in wanted:
            words = Words(each.language)
            lines = [one["text"][each.language] for one in report["insights"]]
            self.send(
                task,
                each,
                "report.ready",
                {
                    "report_id": report["_id"],
                    "kind": report["kind"],
                    "since": report["figures"]["since"],
                    "until": report["figures"]["until"],
                    "page": f"/api/reports/{report['_id']}.html?language={each.language}",
                    "pdf": f"/api/reports/{report['_id']}.pdf?language={each.language}",
                    "measures": {
                        name: measured["value"]
                        for name, measured in report["figures"]["measures"].items()
                    },
                    "money": report["figures"]["money"],
                    "insights": lines,
                },
                "\n".join([_headline(report["figures"], words), *lines]),
            )
        return len(wanted)

    def send(self, task: Task, to: Subscription, event: str, facts: Document, text: str) -> None:
        """Let a message to a subscriber leave, once for this task."""
        if to.channel == "whatsapp":
            body: Document = {"text": text[:4096], "kind": "report", "language": to.language}
        else:
            body = {
                "type": event,
                "timestamp": task.created_at.isoformat(),
                "data": facts | {"text": text},
            }
        # The subscription names the entry: who unsubscribes meanwhile changes no other's.
        self._outbox.put(
            task, f"{event}.{to.id}", Outgoing(to.channel, to.recipient, body, purpose="event")
        )


def set_timers(timers: Timers, settings: Settings) -> None:
    """Let the regular reports be made at their times."""
    for kind, cron in (
        ("daily", settings.report_daily_cron),
        ("weekly", settings.report_weekly_cron),
    ):
        name = f"report.{kind}"
        if cron is None:
            timers.remove(name)
            continue
        request = Request("make_report", {"kind": kind}, caller="timer")
        timers.put(name, request, cron=cron, zone=settings.business_zone)


def file_of(report_id: str, form: Format, language: Language) -> str:
    """The id of a report's file. A CSV has no language."""
    return f"{report_id}.{form}" if form == "csv" else f"{report_id}.{language}.{form}"


def names_of(catalogue: Catalogue, language: Language) -> dict[str, str]:
    """What products are called, by their ids."""
    return {each.id: each.name.in_language(language) for each in catalogue.products}


def _headline(told: Document, words: Words) -> str:
    shown = []
    for name in ("messages", "quotes_offered", "conversion", "answer_p50"):
        measured = told["measures"][name]
        value = words.measured(measured["unit"], measured["value"])
        shown.append(f"{words.say(name)}: {value}")
    return " · ".join(shown)


def _subscription(document: Document) -> Subscription:
    return Subscription(
        id=document["_id"],
        wants=document["wants"],
        channel=document["channel"],
        recipient=document["recipient"],
        language=document["language"],
    )
