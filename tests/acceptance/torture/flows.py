"""`make torture-workflows`: runs of the shipped workflows, while what carries them is killed.

The agents that ship, each in a worker of its own, and beat; customers and approvers who answer
when they are asked. Orchestrator, beat, agents' workers and Redis are killed at random. The world
outside is a receiver of webhooks that is told each message of the desk: what it saw is what
counts. In the end every run has ended as it must, and each step's effect took place once.
"""

import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from outside_world import WebhookReceiver
from rich.console import Console
from rich.table import Table

from orchestrator import logs
from orchestrator.advance import RunState
from orchestrator.context import ordering_key
from orchestrator.definitions import parse, written
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.settings import Settings
from orchestrator.tasks import Request, State
from orchestrator.workflows import CallbackUsed
from torture.desk import OPEN_ENTRIES, OPEN_STATES
from torture.oracle import Oracle
from torture.schedule import Kind, plan
from torture.stage import HERE, PROJECT, START_S, Breaker, Servers
from torture.supervisor import Program, Supervisor

ROLES = ("orchestrator", "conversation", "quote", "data_sync", "followup")
KINDS = (
    Kind("worker killed", ("orchestrator",)),
    Kind("worker killed", ("conversation", "quote", "data_sync", "followup")),
    Kind("beat killed", ("beat",)),
    Kind("Redis killed", ("redis",), (0.5, 2.5), "end"),
    Kind("Redis emptied", ("redis",)),
)
PATIENCE_S = 120.0
POLL_S = 0.5
ANSWERERS = 40
# Of a hundred runs.
MIX = {"whole": 30, "asked": 30, "approved": 15, "refused": 10, "followed_up": 15}
WHOLE = {"product": "isodec", "thickness_mm": 100, "length_m": 10, "width_m": 5}
PRICES = "id,base_price_per_m2\nisodec,155.00\n"
FOLLOWUPS = """
caps:
  per_day: 5000
  per_minute: 1000
spread: 1s
effect_within: 4s
rules:
  - {id: never, on: conversation_idle, after: 30d, message: conversation_idle, priority: 1}
"""
OPEN_ALWAYS = "mon-sun 00:00-24:00"


@dataclass
class Story:
    """One run: what is asked for, and what must come of it.

    `says` are words that the desk's messages must hold, in their order, and no other messages.
    """

    n: int
    kind: str
    run_id: str | None = None
    answered: bool = False
    over: bool = False
    wrong: list[str] = field(default_factory=list)

    @property
    def session_id(self) -> str:
        return f"flow-{self.n}"

    @property
    def says(self) -> list[str]:
        return {
            "whole": ["COT-"],
            "asked": ["espesor", "lo reviso", "COT-"],
            "approved": ["una persona del equipo revisa", "COT-"],
            "refused": ["una persona del equipo revisa", "preferimos verlo"],
            "followed_up": [f"Ya llegó lo tuyo, número {self.n}."],
        }[self.kind]

    @property
    def quotes(self) -> tuple[int, ...]:
        """How many quotes it may make: one that was approved is made anew by new prices."""
        return {"followed_up": (0,), "approved": (1, 2)}.get(self.kind, (1,))


def main(
    minutes: Annotated[float, typer.Option(help="How long runs begin and faults last.")] = 5.0,
    runs: Annotated[int, typer.Option(help="How many runs.")] = 500,
    seed: Annotated[int, typer.Option(help="Of runs and faults.")] = 1,
    gap_s: Annotated[float, typer.Option(help="Mean pause between faults.")] = 8.0,
    keep: Annotated[Path | None, typer.Option(help="New folder for logs and data.")] = None,
) -> None:
    """Torture the shipped workflows, and tell what became of each run."""
    sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        directory = keep or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        good = Flows(directory, minutes * 60, runs, seed, gap_s).play()
    sys.exit(0 if good else 1)


class Flows:
    """One play, from an empty folder to the verdict."""

    def __init__(self, directory: Path, length_s: float, runs: int, seed: int, gap_s: float):
        self._length_s = length_s
        self._console = Console(width=110)
        rng = random.Random(f"flows {seed}")
        kinds, odds = list(MIX), list(MIX.values())
        self.stories = [Story(n, rng.choices(kinds, odds)[0]) for n in range(runs)]
        self._faults = plan(seed, length_s, (gap_s * 0.5, gap_s * 1.5), KINDS)
        self._world = WebhookReceiver().start()
        self._oracle = Oracle()
        self._servers = Servers(directory, mongo=True)
        (directory / "imports").mkdir()
        (directory / "imports" / "prices.csv").write_text(PRICES)
        (directory / "followups.yaml").write_text(FOLLOWUPS)
        environment = {
            "REDIS_URL": Servers.redis_url(self._servers.redis.port),
            "MONGODB_URI": self._servers.mongo.url if self._servers.mongo else "",
            "MONGODB_DATABASE": "flows",
            "KEY_PREFIX": "flows",
            "LEASE_S": "4",
            "HEARTBEAT_S": "1",
            "RUN_LOOK_S": "5",
            "WORKER_METRICS_PORT": "off",
            "BUSINESS_HOURS": OPEN_ALWAYS,
            "BUSINESS_COUNTRY": "",
            "FOLLOWUPS_FILE": str(directory / "followups.yaml"),
            "IMPORT_DIR": str(directory / "imports"),
            "LOG_LEVEL": "info",
            "PYTHONPATH": f"{HERE.parent}:{PROJECT}",
        }
        environment |= {name.upper(): value for name, value in self._world.settings.items()}
        known = {k.lower(): v for k, v in environment.items() if k.lower() in Settings.model_fields}
        settings = Settings(**known)
        logs.configure(settings, "error")
        self.engine = Engine(settings)
        self._supervisor = Supervisor(directory, environment)
        self._breaker = Breaker(self._servers, self._supervisor, directory / "clock.offset")
        self._next = iter(self.stories)
        self._lock = threading.Lock()
        self._give_up = threading.Event()
        self._failed: list[BaseException] = []
        self._console.print(
            f"seed {seed}: {runs} runs, {len(self._faults)} faults in {length_s / 60:.1f} minutes; "
            f"logs in {directory}"
        )

    def play(self) -> bool:
        """Everything; ends all processes whatever happens."""
        try:
            self._start()
            self._began_at = time.monotonic()
            people = [
                threading.Thread(target=self._answer, daemon=True)
                for _ in range(min(ANSWERERS, len(self.stories)))
            ]
            for each in people:
                each.start()
            self._break_and_mend()
            settled = self._settle(people)
            return self._judge(settled)
        finally:
            self._give_up.set()
            self._supervisor.close()
            self.engine.close()
            self._servers.close()
            self._world.stop()

    def _start(self) -> None:
        celery = ("celery", "-A")
        for role in ROLES:
            command = (*celery, f"agents.{role}", "worker", "--loglevel=info")
            self._supervisor.start(Program(role, command, {}))
        self._supervisor.start(Program("beat", (*celery, "agents.all", "beat"), {}))
        deadline = time.monotonic() + START_S
        while not self._ready():
            self._supervisor.tick()
            if time.monotonic() > deadline or self._supervisor.exits:
                raise TimeoutError(f"the desk was not ready within {START_S:.0f} s")
            time.sleep(0.2)
        # A follow-up's effect is looked at for seconds here, and not for days.
        followed_up = written(self.engine.definitions.get("followup_workflow"))
        for long, short in (("timeout: 1d", "timeout: 2s"), ("for: 5m", "for: 1s")):
            assert long in followed_up, "the shipped follow-up has other delays than this knows"
            followed_up = followed_up.replace(long, short)
        self.engine.definitions.put(parse(followed_up, "followup_workflow"), "torture")

    def _ready(self) -> bool:
        queues = [self.engine.settings.queue(role) for role in ROLES]
        live = [
            agent
            for worker in self.engine.registry.load(queues).workers
            if worker.status in ("idle", "busy")
            for agent in worker.beat.agents
        ]
        return {f"{role}_agent" for role in ROLES} <= set(live)

    def _break_and_mend(self) -> None:
        due = list(self._faults)
        while (now_s := time.monotonic() - self._began_at) < self._length_s or due:
            self._supervisor.tick()
            for fault in self._breaker.mend_due(now_s):
                self._tell(f"mended: {fault.kind}")
            for fault in [fault for fault in due if fault.at_s <= now_s]:
                if self._breaker.free(fault) and self._breaker.ready(fault):
                    due.remove(fault)
                    self._tell(f"{fault.kind} ({fault.target})")
                    self._breaker.begin(fault, now_s)
            if self._failed:
                raise self._failed[0]
            time.sleep(0.1)
        while self._breaker.busy:
            self._breaker.mend_due(time.monotonic() - self._began_at)
            time.sleep(0.1)

    def _tell(self, text: str) -> None:
        over = sum(story.over for story in self.stories)
        now_s = time.monotonic() - self._began_at
        self._console.print(f"  {now_s:7.1f} s  {over:4} over  {text}", highlight=False)

    def _settle(self, people: list[threading.Thread]) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self._supervisor.tick()
            if self._failed:
                raise self._failed[0]
            if not any(each.is_alive() for each in people) and self._is_quiet():
                self._tell("settled")
                return True
            time.sleep(0.5)
        return False

    def _is_quiet(self) -> bool:
        database = self.engine.database
        return not (
            database["tasks"].count_documents({"state": {"$in": OPEN_STATES}}, limit=1)
            or database["outbox"].count_documents({"state": {"$in": OPEN_ENTRIES}}, limit=1)
        )

    # -- customers, and those who approve --------------------------------------------------

    def _answer(self) -> None:
        """Begin one run after the other, each at its time, and see it through."""
        pace_s = self._length_s / len(self.stories)
        try:
            while not self._give_up.is_set():
                with self._lock:
                    story = next(self._next, None)
                if story is None:
                    return
                due_at = self._began_at + story.n * pace_s
                self._give_up.wait(max(0.0, due_at - time.monotonic()))
                self._begin(story)
                while not self._give_up.is_set() and not self._is_over(story):
                    self._give_up.wait(POLL_S)
        except BaseException as error:
            self._failed.append(error)
            raise

    def _surely(self, act: Callable[[], Any]) -> Any:
        """Repeat what a store or broker that is away has left unknown."""
        while not self._give_up.is_set():
            try:
                return act()
            except StoreUnavailable:
                self._give_up.wait(0.3)
        return None

    def _begin(self, story: Story) -> None:
        engine, session_id = self.engine, story.session_id
        self._surely(
            lambda: engine.sessions.open(
                session_id, None, caller="local", channel="web", trusted=False
            )
        )
        if story.kind == "followed_up":
            # Nobody is written to who has said nothing.
            self._say(story, "hola", "greeting")
            payload = {
                "session_id": session_id,
                "message": "custom",
                "text": story.says[0],
            }
            self._submit(story, Request("schedule_followup", payload), "schedule")
            return
        given: dict[str, Any] = {"session_id": session_id, "items": [WHOLE]}
        workflow = "quote_workflow"
        if story.kind == "asked":
            given["items"] = [{"product": "isodec"}]
        elif story.kind in ("approved", "refused"):
            workflow = "quote_approval"
            given |= {"limit": 1000, "catalogue_file": "prices.csv"}

        def begun() -> str:
            key = f"run/{story.n}"
            return engine.workflows.start(workflow, given, caller="operator", key=key)[0].id

        story.run_id = self._surely(begun)

    def _submit(self, story: Story, request: Request, name: str) -> None:
        keyed = Request(**(vars(request) | {"idempotency_key": f"{name}/{story.n}"}))
        self._surely(lambda: self.engine.coordinator.submit(keyed))

    def _say(self, story: Story, text: str, name: str) -> None:
        payload = {"session_id": story.session_id, "message": text}
        key = ordering_key(story.session_id)
        self._submit(story, Request("process_message", payload, ordering_key=key), name)

    def _is_over(self, story: Story) -> bool:
        with suppress(StoreUnavailable):
            run_id = story.run_id or self._followed_up(story)
            if run_id is None:
                return False
            story.run_id = run_id
            stored = self.engine.workflows.get(run_id)
            if stored.run.state.final:
                story.over = True
                return True
            if not story.answered:
                story.answered = self._answered(story, stored)
        return False

    def _followed_up(self, story: Story) -> str | None:
        found = self.engine.database["runs"].find_one({"input.session_id": story.session_id})
        return None if found is None else str(found["_id"])

    def _answered(self, story: Story, stored: Any) -> bool:
        if story.kind == "asked":
            if not self.engine.workflows.is_taken(story.session_id) or not self._said(story):
                return False
            self._say(story, "de 100, y son 10 x 5", "answer")
            return True
        waiting = self.engine.workflows.callbacks(stored)
        if story.kind not in ("approved", "refused") or not waiting:
            return False
        [(name, path)] = waiting
        yes = {"approved": story.kind == "approved"}

        def answer() -> None:
            token = path.partition("token=")[2]
            with suppress(CallbackUsed):
                self.engine.workflows.called_back(stored.id, name, token, yes)

        self._surely(answer)
        return True

    def _said(self, story: Story) -> list[str]:
        session = self.engine.sessions.get(story.session_id)
        return [
            message.text
            for message in self.engine.sessions.messages(session)
            if message.role == "assistant"
        ]

    # -- the verdict -----------------------------------------------------------------------

    def _judge(self, settled: bool) -> bool:
        wrong = [] if settled else [f"not settled within {PATIENCE_S:.0f} s"]
        for event in self._world.taken:
            told = event["data"]
            # The webhook's id is the effect's; the same words to one session are one effect.
            key = f"{told['session_id']}/{told['text']}"
            self._oracle.put(key, {"id": event["webhook_id"]})
        seen: dict[str, list[str]] = {}
        for entry in self._oracle.entries():
            session_id, _, text = entry.key.partition("/")
            if entry.what == "effect":
                seen.setdefault(session_id, []).append(text)
            elif entry.what == "second":
                wrong.append(f"{session_id} was told twice: {text[:60]}")
        for story in self.stories:
            wrong += [
                f"{story.kind} {story.n} ({story.run_id}): {x}" for x in self._of(story, seen)
            ]
        wrong += self._of_tasks()
        self._show(wrong)
        return not wrong

    def _of(self, story: Story, seen: dict[str, list[str]]) -> Iterator[str]:
        """What is wrong with one run."""
        if story.run_id is None:
            yield "it never began"
            return
        run = self.engine.workflows.get(story.run_id).run
        if run.state is not RunState.COMPLETED:
            open_ones = [visit.key for visit in run.visits if visit.state.open]
            yield f"it is {run.state.value}, {run.error or open_ones}"
        told = self._said(story)
        if story.kind == "followed_up":
            told = told[1:]  # the answer to the greeting
        if len(told) != len(story.says) or any(
            words not in text for words, text in zip(story.says, told, strict=False)
        ):
            yield f"it said {told}"
        outside = seen.get(story.session_id, [])
        missing = [text for text in self._said(story) if text not in outside]
        if missing or len(outside) != len(self._said(story)):
            yield f"the world was told {outside}"
        found = list(self.engine.database["quotes"].find({"session": story.session_id}))
        if len(found) not in story.quotes:
            yield f"{len(found)} quotes were made"
        states = sorted(quote["state"] for quote in found if quote.get("superseded_by") is None)
        must = {"refused": ["rejected"], "followed_up": []}.get(story.kind, ["sent"])
        if states != must:
            yield f"its quote is {states}"

    def _of_tasks(self) -> Iterator[str]:
        wanted = {"state": 1, "run": 1, "type": 1, "timeline.event": 1}
        for task in self.engine.database["tasks"].find({}, wanted):
            state = State(task["state"])
            events = [event["event"] for event in task["timeline"]]
            ends = [event for event in events if event in ("completed", "failed", "cancelled")]
            if not state.final or ends != [state.value]:
                yield f"{task['_id']} ({task['type']}) is {state.value}, ended by {ends}"
            elif state is State.FAILED:
                yield f"{task['_id']} ({task['type']}) has failed"
        open_runs = {"state": {"$nin": ["completed", "failed", "cancelled"]}}
        for run in self.engine.database["runs"].find(open_runs, {"state": 1}):
            yield f"run {run['_id']} is {run['state']}"
        left = self.engine.database["run_waits"].count_documents({})
        if left:
            yield f"{left} waits are left behind"

    def _show(self, wrong: list[str]) -> None:
        table = Table(title="Workflows", min_width=60)
        table.add_column("")
        table.add_column("", justify="right")
        for kind, n in Counter(story.kind for story in self.stories).items():
            table.add_row(f"runs, {kind}", str(n))
        for kind, n in Counter(fault.kind for fault in self._breaker.applied).items():
            table.add_row(kind, str(n))
        table.add_row("processes started again", str(sum(self._supervisor.restarts.values())))
        table.add_row("messages that the world was told", str(len(self._world.taken)))
        table.add_row("wrong", f"[{'red' if wrong else 'green'}]{len(wrong)}[/]")
        self._console.print(table)
        for line in wrong[:40]:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._console.print("[bold red]BROKEN[/]" if wrong else "[green]kept[/]")


if __name__ == "__main__":
    typer.run(main)
