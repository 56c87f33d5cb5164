"""Play weeks of a business through the real system, and show the last month's report.

Real are the servers (MongoDB's and Redis' protocol), the front door, the agents' handlers as
workers run them, the outbox and its tasks, the sheet's contract. The clock is moved by hand, so
the handlers run in this process and not behind Celery: time goes by for all of them at once.
"""

import argparse
import contextlib
import datetime as dt
import heapq
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from shops import GoogleSheets, service_account

from agents.analytics.wording import Words
from agents.stores import stores_of
from api.app import create_app
from deploy.servers import MongoServer, RedisServer
from month.clock import MovedClock
from month.customers import Customer, arrivals
from orchestrator import logs
from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.registry import Heartbeat, lane
from orchestrator.settings import Settings
from orchestrator.tasks import Priority, Request
from orchestrator.worker import AttemptFailed, Runtime, StopRequest

Document = dict[str, Any]
TOKEN = "operator-of-the-demonstration"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
DEARER_ON, DEARER = 19, 1.18  # the day on which prices go up, and by how much
EAGER_THEN = 0.62  # and how gladly quotes are taken from then on
OUTAGE_ON, OUTAGE_H = 31, 3  # when the conversation agent is down, from eleven
SLOTS = {"conversation": 10, "quote": 5, "followup": 3, "data_sync": 5, "analytics": 3}
SINKS = """
quote_sinks:
  sheet:
    target:
      type: google_sheet
      url: "{url}"
      spreadsheet: "{id}"
      sheet: Cotizaciones
      key_column: Ref.
      secret: office
    columns:
      Estado: {{from: state}}
      Fecha: {{from: created_at, type: date}}
      Orig.: {{from: origin}}
      Consulta: {{from: description}}
      Total: {{from: total, type: decimal}}
"""


_OF_A_TASK = ("agent", "type", "fence", "run_after")


class Month:
    """The desk, its customers, and the time that goes by."""

    def __init__(self, asked: argparse.Namespace, folder: Path, console: Console) -> None:
        self.console, self.asked, self.folder = console, asked, folder
        self.rng = random.Random(asked.seed)
        self.redis = RedisServer(_made(folder / "redis")).start()
        self.mongo = MongoServer(_made(folder / "mongo"), sync=False).start()
        self.sheets = GoogleSheets()
        self.sheets.sheets["Cotizaciones"] = [
            ["Ref.", "Estado", "Fecha", "Orig.", "Consulta", "Total"]
        ]
        self.sheets.start()
        (folder / "syncs.yaml").write_text(
            SINKS.format(url=self.sheets.url, id=GoogleSheets.ID), encoding="utf-8"
        )
        office = service_account() | {"token_uri": f"{self.sheets.url}/token"}
        settings = Settings(
            redis_url=f"{self.redis.url}/0",
            mongodb_uri=self.mongo.url,
            operator_token=SecretStr(TOKEN),
            import_dir=_made(folder / "imports"),
            syncs_file=folder / "syncs.yaml",
            sync_secrets=SecretStr(json.dumps({"office": office})),
            http_allowed_hosts="127.0.0.1",
            # The database removes by its own clock, which is five weeks ahead of ours.
            task_retention_days=365,
            context_history_days=365,
            declarations_refresh_s=300,
            quiet_ms=0,
            quiet_unwatched_ms=0,
            chat_wait_s=0.0,
            store_timeout_s=30,
            worker_offline_s=600,
            max_unfinished=10**6,
        )
        self.zone = settings.working_time.zone
        today = dt.datetime.now(self.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        self.until = today.astimezone(dt.UTC)
        self.since = (today - asked.weeks * 7 * DAY).astimezone(dt.UTC)
        self.clock = MovedClock(self.since)
        self.engine = Engine(settings, clock=self.clock)
        self.agents = discover(settings.agents_package)
        self.by_id = {agent.id: agent for agent in self.agents.values()}
        self.runtime = Runtime(
            settings,
            list(self.agents.values()),
            "month",
            dict.fromkeys(self.by_id, 1),
            StopRequest(),
            watches_consumer=False,
        )
        self.runtime.engine.close()
        self.runtime.engine = self.engine
        logs.configure(settings, "error")
        self.engine.init(list(self.agents.values()))
        self.rescuer = self.engine.rescuer("month", eager=True)
        self.door = create_app(self.engine).test_client()
        self.counted: Counter[str] = Counter()
        self.by_session: dict[str, Customer] = {}

    # -- the desk -----------------------------------------------------------------------

    def down(self) -> bool:
        """Whether the conversation agent is down now."""
        local = self.clock.now().astimezone(self.zone)
        day = (local.date() - self.since.astimezone(self.zone).date()).days
        return day == OUTAGE_ON and 11 <= local.hour < 11 + OUTAGE_H

    def eager(self) -> float:
        """How gladly quotes are taken now."""
        return EAGER_THEN if self.clock.now() > self.since + DEARER_ON * DAY else 1.0

    def work(self) -> None:
        """Run what is queued and due, until nothing is."""
        tasks = self.engine.database["tasks"]
        while True:
            now = self.clock.now()
            queued = [
                task
                # By one index; what else matters is compared here.
                for task in tasks.find({"state": "queued"}, _OF_A_TASK).limit(200)
                if (task.get("run_after") or now) <= now
                and not (self.down() and task["agent"] == "conversation_agent")
            ]
            if not queued:
                return
            for task in sorted(queued, key=lambda each: str(each["_id"])):
                agent = self.by_id[task["agent"]]
                kind = agent.task_types[task["type"]]
                with contextlib.suppress(AttemptFailed):
                    self.runtime.execute(agent, kind, task["_id"], task["fence"], alone=False)
                self.counted["tasks"] += 1

    def chores(self) -> None:
        """What beat, timers and the rescuer do, once an hour."""
        for agent in self.by_id.values():
            slots = 0 if self.down() and agent.role == "conversation" else SLOTS.get(agent.role, 3)
            if slots:
                self.engine.registry.beat(
                    Heartbeat(f"month/{agent.role}", "month", {agent.id: slots})
                )
            else:
                self.engine.registry.leave(f"month/{agent.role}")
            for schedule in agent.schedules:
                self.submit(schedule.task_type, schedule.payload, Priority.LOW)
        # Nobody takes messages here: what is to be run is read from the store.
        queues = [self.engine.settings.queue(role) for role in self.agents]
        self.engine.redis.delete(*(lane(queue, each) for queue in queues for each in Priority))
        self.rescuer.run_once()
        self.work()

    def submit(
        self, task_type: str, payload: Document, priority: Priority = Priority.NORMAL
    ) -> str:
        """Have a task accepted."""
        request = Request(task_type, payload, caller="demonstration", priority=priority)
        return self.engine.coordinator.submit(request)[0].id

    # -- the business -------------------------------------------------------------------

    def import_catalogue(self, products: int, factor: float, name: str) -> None:
        """Bring a file with the whole price list in."""
        known = self.engine.database["catalogues"]
        base = {"isodec": 150, "poliestireno": 120, "lana_roca": 140}
        lines = [
            "id,name_es,name_en,description_es,description_en,thicknesses_mm,base_price_per_m2"
        ]
        if factor != 1:
            lines += [f"{each},,,,,,{price * factor:.2f}" for each, price in base.items()]
        lines += [
            f"acc_{n:05},Accesorio QX{n:05},Accessory QX{n:05},De chapa.,Of sheet metal.,50|100,"
            f"{(20 + n % 180) * factor:.2f}"
            for n in range(products - len(base))
        ]
        path = self.engine.settings.import_dir
        assert path is not None
        # What one import takes, its head among it.
        (path / name).write_text("\n".join(lines[:5000]), encoding="utf-8")
        task_id = self.submit("import_catalogue", {"format": "csv", "path": name})
        self.work()
        task = self.engine.store.get(task_id)
        result = task.result or {}
        if not result.get("published"):
            why = {each: result.get(each) for each in ("rows", "wrong_rows", "held")}
            raise SystemExit(f"not imported: {task.state.value}, {task.error or why}")
        there = len(stores_of(self.engine).catalogues.current().products)
        told = f"{there:,} products in version {result['version']}"
        self.console.print(f"{self.clock.now():%d %b} catalogue imported: {told}")
        self.counted["versions"] = known.count_documents({})

    def say(self, customer: Customer, session: str, text: str) -> str | None:
        """Write as a customer does; the task's id, None where the desk refused."""
        body = {
            "message": text,
            "session_id": session,
            "phone": customer.phone,
            "channel": customer.channel,
        }
        answer = self.door.post("/chat/process?wait=0", json=body, headers=OPERATOR)
        self.counted["messages"] += 1
        if answer.status_code not in (200, 202):
            self.counted[f"refused {answer.status_code}"] += 1
            return None
        told: str = answer.json["task_id"]
        return told

    def answer_followups(self) -> list[tuple[dt.datetime, Customer, str, str]]:
        """What customers say to what the desk wrote to them lately."""
        since = self.clock.now() - DAY
        found = []
        for followup in self.engine.database["followups"].find({"sent_at": {"$gte": since}}):
            customer = self.by_session.get(followup["session_id"])
            if customer is None:
                continue
            del self.by_session[followup["session_id"]]
            text = customer.after_followup(self.eager())
            if text is not None:
                at = self.clock.now() + self.rng.uniform(0.2, 8) * HOUR
                found.append((at, customer, followup["session_id"], text))
        return found

    # -- time ---------------------------------------------------------------------------

    def play(self) -> None:
        """Let the weeks go by."""
        order = itertools.count()
        events: list[tuple[dt.datetime, int, str, Any]] = []

        def push(at: dt.datetime, what: str, facts: Any) -> None:
            if at < self.until:
                heapq.heappush(events, (at, next(order), what, facts))

        self.import_catalogue(self.asked.products, 1.0, "list.csv")
        for hour in range(0, self.asked.weeks * 7 * 24, self.asked.every_h):
            push(self.since + hour * HOUR + dt.timedelta(minutes=4), "chores", None)
        push(self.since + DEARER_ON * DAY + 9 * HOUR, "dearer", None)
        a_week = self.asked.conversations / self.asked.weeks
        for at in arrivals(self.since, self.until, self.zone, a_week, self.rng):
            push(at, "new", None)
        waiting: list[tuple[str, Customer, str]] = []
        day = None
        while events:
            at, _, what, facts = heapq.heappop(events)
            self.clock.move_to(at)
            if what == "dearer":
                self.import_catalogue(self.asked.products, DEARER, "list-dearer.csv")
            elif what == "chores":
                self.chores()
                if (local := self.clock.now().astimezone(self.zone).date()) != day:
                    day = local
                    if local.weekday() == 0:
                        told = f"{self.counted['conversations']:,} conversations so far"
                        self.console.print(f"{local:%d %b} {told}, {self.counted['tasks']:,} tasks")
                    for moment, customer, session, text in self.answer_followups():
                        push(moment, "say", (customer, session, text))
            else:
                if what == "new":
                    customer = Customer(self.rng)
                    session = f"c{next(order)}"
                    self.by_session[session] = customer
                    text = customer.first()
                    self.counted["conversations"] += 1
                else:
                    customer, session, text = facts
                task_id = self.say(customer, session, text)
                if task_id is not None:
                    waiting.append((task_id, customer, session))
                self.work()
            still = []
            for task_id, customer, session in waiting:
                task = self.engine.store.get(task_id)
                if not task.state.final:
                    still.append((task_id, customer, session))
                    continue
                quoted = bool((task.result or {}).get("quote"))
                said = customer.next(quoted or customer._step > 1, self.eager())
                if said is not None:
                    push(self.clock.now() + said.after, "say", (customer, session, said.text))
            waiting = still
        for minutes in (10, 20):
            # What is told of a change is told by the next look, and sent after it.
            self.clock.move_to(self.until + dt.timedelta(minutes=minutes))
            self.chores()

    # -- what came of it ----------------------------------------------------------------

    def report(self) -> Document:
        """Have the last month's report made, by the front door."""
        since = self.until - 30 * DAY
        body = {"since": since.isoformat(), "until": self.until.isoformat()}
        made = self.door.post("/api/reports?wait=0", json=body, headers=OPERATOR)
        self.work()
        report_id = made.json["task_id"] if made.status_code == 202 else made.json["id"]
        report: Document = self.door.get(f"/api/reports/{report_id}", headers=OPERATOR).json
        for form in ("html", "pdf", "csv"):
            path = f"/api/reports/{report_id}.{form}"
            self.door.get(path, headers=OPERATOR)
            self.work()
            (self.folder / f"report.{form}").write_bytes(self.door.get(path, headers=OPERATOR).data)
        return report

    def close(self) -> None:
        """End what was started."""
        self.engine.close()
        self.sheets.stop()
        self.redis.stop()
        self.mongo.stop()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def picture(folder: Path) -> Path | None:
    """The page as a picture, where there is a browser to make it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return None
    file = folder / "report.png"
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--screenshot={file}", "--window-size=1060,1500"),
            (folder / "report.html").resolve().as_uri(),
        ],
        check=False,
        capture_output=True,
        timeout=120,
    )
    return file if file.exists() else None


def show(month: Month, report: Document, console: Console) -> None:
    """The report's main figures, what it says, and the alerts of the month."""
    words = Words("es")
    table = Table(title="The last 30 days", title_justify="left", box=None)
    table.add_column("")
    table.add_column("value", justify="right")
    for name in (
        *("messages", "sessions", "answer_p50", "answer_p95", "quotes_offered", "quotes_accepted"),
        *("conversion", "followups_sent", "followups_answered", "handovers", "dead_letters"),
    ):
        measured = report["figures"]["measures"][name]
        table.add_row(name, words.measured(measured["unit"], measured["value"]))
    console.print(table)
    for insight in report["insights"]:
        console.print(f"- {insight['text']['es']}")
    alerts = month.door.get("/api/alerts", headers=OPERATOR).json["alerts"]
    for alert in reversed(alerts):
        console.print(f"! {alert['began_at'][:16]} {alert['text']['es']}")
    rows = month.sheets.sheets["Cotizaciones"]
    entries = Counter(
        f"{entry['state']} {(entry.get('reason') or {}).get('code', '')}".strip()
        for entry in month.engine.database["outbox"].find({"channel": "sink"})
    )
    left = ", ".join(f"{n:,} {state}" for state, n in sorted(entries.items()))
    console.print(f"{len(rows) - 1:,} quotes in the sheet (changes of them: {left or 'none'})")


def main() -> int:
    """Play, and say where the report is."""
    parser = argparse.ArgumentParser(prog="month", description=__doc__)
    parser.add_argument("--weeks", type=int, default=5, help="up to today")
    parser.add_argument("--conversations", type=int, default=1000, help="in all of them")
    parser.add_argument("--every-h", type=int, default=1, help="what beat does, so often")
    parser.add_argument("--products", type=int, default=5000, help="in the catalogue")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/month"))
    asked = parser.parse_args()
    console, began = Console(highlight=False), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="month.") as name:
        month = Month(asked, Path(name), console)
        try:
            month.play()
            report = month.report()
            show(month, report, console)
            _made(asked.out)
            for form in ("html", "pdf", "csv"):
                shutil.copy(month.folder / f"report.{form}", asked.out)
            shown = picture(asked.out)
        finally:
            month.close()
    told = ", ".join(f"{n:,} {what}" for what, n in month.counted.items())
    console.print(f"{told}, in {time.monotonic() - began:.0f} s")
    console.print(f"The report: {asked.out}/report.html, .pdf, .csv" + (", .png" if shown else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
