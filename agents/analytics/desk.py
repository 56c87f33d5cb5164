"""The parts of this agent put together, one of each per engine."""

import datetime as dt
import threading
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from agents.analytics.alerts import Alerts
from agents.analytics.figures import figures
from agents.analytics.insights import insights
from agents.analytics.reports import Format, Kind, Reports, period_of
from agents.analytics.rollup import HOUR, RollUp, hour_of
from agents.analytics.tally import merged
from agents.analytics.wording import Words
from agents.business import load_business
from agents.catalogue import Language
from agents.stores import stores_of
from orchestrator.engine import Engine
from orchestrator.errors import BrokerUnavailable
from orchestrator.logs import log
from orchestrator.tasks import Request, Task

Document = dict[str, Any]
AlertEvent = Literal["opened", "resolved"]
# An hour is judged once most of what belongs to it has come to an end.
SETTLING: Final = dt.timedelta(minutes=3)
TOLD: Final = ("watch", "part", "state", "period", "value", "expected", "low", "high", "unit")


class AnalyticsDesk:
    """What the agent's handlers call. Raises StoreUnavailable as the stores do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rollup = RollUp(
            engine.database, engine.clock, engine.settings, stores_of(engine).followups
        )

        self.alerts = Alerts(engine.database, self.rollup, engine.settings)
        self.reports = Reports(
            engine.database, engine.clock, engine.files, engine.outbox, engine.settings
        )

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        self.rollup.ensure_indexes()
        self.reports.ensure_indexes()
        self.alerts.ensure_indexes()

    def keep_up(self) -> dict[str, int]:
        """Count what has happened since the last time, look at the workers, judge the hours that
        have ended, and let go of reports that are over."""
        now = self._engine.clock.now()
        self._look_at_workers(now)
        self.reports.let_go()
        counted = self.rollup.bring_up_to(now, with_open_hour=False)
        judged = self.alerts.look(now - SETTLING, self._tell_later)
        return counted | {"judged": judged}

    def _tell_later(self, alert: Document, event: str) -> None:
        """Have an alert told, once for each of its events."""
        if not self.reports.who_wants("alerts"):
            return
        self._engine.coordinator.submit(
            Request(
                "tell_alert",
                {"alert_id": alert["_id"], "event": event},
                caller="analytics",
                idempotency_key=f"{alert['_id']}/{event}",
            )
        )

    def tell_alert(self, task: Task, alert_id: str, event: AlertEvent) -> int:
        """Tell who subscribes to alerts of one, once for the task; returns to how many."""
        alert = self.alerts.get(alert_id)
        if alert is None:
            return 0
        wanted = self.reports.who_wants("alerts")
        for each in wanted:
            text = alert["text"][each.language]
            if event == "resolved":
                text = Words(each.language).say("alert_over", text=text)
            facts = {name: alert[name] for name in TOLD} | {
                name: None if alert[name] is None else alert[name].isoformat()
                for name in ("began_at", "resolved_at")
            }
            self.reports.send(task, each, f"alert.{event}", facts, text)
        return len(wanted)

    def period_of(self, kind: Kind, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """The time of a regular report that is made now."""
        return period_of(kind, now, self.rollup.zone)

    def make_report(
        self, task: Task, kind: Kind, since: dt.datetime, until: dt.datetime
    ) -> tuple[Document, int]:
        """Make a report once for a task, and tell who subscribes; the report, and to how many."""
        report = self.reports.get(task.id)
        if report is None:
            told = self.figures_of(since, until)
            catalogue = stores_of(self._engine).catalogues.current()
            report = self.reports.keep(task, kind, told, insights(told), catalogue)
        # In each run of the task: whoever died before has it done now.
        return report, 0 if kind == "asked" else self.reports.tell(task, report)

    def render(self, report_id: str, form: Format, language: Language) -> str | None:
        """Make a report's file; returns its id, None where there is no such report."""
        report = self.reports.get(report_id)
        if report is None:
            return None
        business = load_business(self._engine.settings.business_file)
        catalogue = stores_of(self._engine).catalogues.current()
        return self.reports.render(report, form, language, business, catalogue)

    def figures_of(self, since: dt.datetime, until: dt.datetime) -> Document:
        """The figures of a time, from the hour of `since` to the end of the hour before `until`
        (or, where `until` is within an hour, of that one)."""
        since = hour_of(since)
        until = hour_of(until) if hour_of(until) == until else hour_of(until) + HOUR
        self.rollup.bring_up_to(self._engine.clock.now())
        since_before = since - (until - since)
        # Half of a time against the whole of another would tell a rise that there was not.
        before = (
            merged(self.rollup.by_day(since_before, since).values())
            if self.rollup.counted_since(since_before)
            else None
        )
        return figures(
            self.rollup.by_day(since, until),
            before,
            since=since,
            until=until,
            zone=self.rollup.zone.key,
        )

    def _look_at_workers(self, now: dt.datetime) -> None:
        declared = self._engine.declarations.all()
        try:
            load = self._engine.router.load()
        except BrokerUnavailable:
            log.info("analytics.workers_not_seen")
            return
        slots = {
            agent_id: sum(worker.beat.agents[agent_id] for worker in load.live(agent_id))
            for agent_id in declared
        }
        self.rollup.saw_slots(now, slots)


_lock = threading.Lock()
_of_engine: WeakKeyDictionary[Engine, AnalyticsDesk] = WeakKeyDictionary()


def desk_of(engine: Engine) -> AnalyticsDesk:
    """The desk of a process, opened at the first call."""
    with _lock:
        desk = _of_engine.get(engine)
        if desk is None:
            desk = _of_engine[engine] = AnalyticsDesk(engine)
        return desk
