"""Agents' handlers on a real engine, called as a worker calls them; and the command line."""

import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.data_sync.agent import agent as data_sync
from agents.data_sync.agent import open_office
from agents.data_sync.store import Records
from agents.data_sync.syncs import Syncs, syncs_of
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.tasks import Request, Task
from orchestrator.worker import AttemptFailed, Runtime, StopRequest, TaskContext


@dataclass(frozen=True)
class Desk:
    """One agent of an engine, without a worker."""

    engine: Engine
    agent: Agent

    def accept(self, task_type: str, payload: dict[str, Any] | None = None) -> Task:
        """A task as it is accepted: routed, validated by the declared schema, stored."""
        task, _ = self.engine.coordinator.submit(Request(task_type, payload or {}, caller="test"))
        return task

    def run(self, task: Task) -> Any:
        """One run of the task's handler; nothing of it is stored in the task."""
        declared = self.agent.task_types[task.type]
        payload = declared.payload.model_validate(task.payload)
        return declared.handler(TaskContext(task, self.engine, [], {}), payload)

    def ask(self, task_type: str, payload: dict[str, Any] | None = None) -> Any:
        """Accept a task and run its handler once."""
        return self.run(self.accept(task_type, payload))


@pytest.fixture
def desk_of(engine: Engine) -> Callable[[Agent], Desk]:
    """An agent that is set up and declared on a fresh engine."""

    def desk(agent: Agent) -> Desk:
        engine.init([agent])
        return Desk(engine, agent)

    return desk


class Workers:
    """Workers of some agents on an engine, one attempt after the other, each as it really is."""

    def __init__(self, engine: Engine, agents: Sequence[Agent]) -> None:
        self.engine = engine
        self._by_id = {agent.id: agent for agent in agents}
        slots = dict.fromkeys(self._by_id, 2)
        self._runtime = Runtime(
            engine.settings, agents, "test", slots, StopRequest(), watches_consumer=False
        )
        self._runtime.engine.close()
        self._runtime.engine = engine

    def work(self, at_most: int = 1_000) -> list[str]:
        """Run what is queued and due until nothing is; the tasks' ids, in that order."""
        done: list[str] = []
        while len(done) < at_most:
            late = {"run_after": {"$gt": self.engine.clock.now()}}
            queued = self.engine.database["tasks"].find({"state": "queued", "$nor": [late]})
            found = next(iter(queued.sort("_id", 1).limit(1)), None)
            if found is None:
                break
            agent = self._by_id[found["agent"]]
            kind = agent.task_types[found["type"]]
            with contextlib.suppress(AttemptFailed):
                self._runtime.execute(agent, kind, found["_id"], found["fence"], alone=False)
            done.append(found["_id"])
        return done


@pytest.fixture
def workers(engine: Engine) -> Callable[..., Workers]:
    """Set up and declare agents on a fresh engine, with workers that run when they are told."""

    def made(*agents: Agent) -> Workers:
        engine.init(agents)
        return Workers(engine, agents)

    return made


@pytest.fixture
def advance(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the database's clock and our own together, as time does."""
    ahead = {"s": 0.0}
    read, monotonic = engine.store.read_clock, engine.clock.monotonic
    monkeypatch.setattr(engine.clock, "monotonic", lambda: monotonic() + ahead["s"])
    monkeypatch.setattr(engine.store, "read_clock", lambda: None if ahead["s"] else read())
    engine.clock._base_monotonic = engine.clock.monotonic()
    engine.clock._base = dt.datetime.now(dt.UTC)
    return lambda seconds: ahead.__setitem__("s", ahead["s"] + seconds)


# One process runs several commands, since most of a command's time is its start.
DRIVER = """
import contextlib, io, json, sys
from orchestrator import cli
runs = []
for arguments in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["orchestrator", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    runs.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
json.dump(runs, sys.stdout)
"""


@dataclass(frozen=True)
class Run:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def orchestrator(settings: Settings, project: Path) -> Callable[..., list[Run]]:
    """Run commands, each a list of arguments; keywords are variables of their environment."""
    environment = os.environ | {
        "REDIS_URL": settings.redis_url,
        "MONGODB_URI": settings.mongodb_uri,
        "MONGODB_DATABASE": settings.mongodb_database,
        "KEY_PREFIX": settings.key_prefix,
        # A beat that a test sent stays alive for the whole test.
        "WORKER_OFFLINE_S": "600",
    }

    def run(*commands: list[str], **variables: str) -> list[Run]:
        driven = subprocess.run(
            [sys.executable, "-c", DRIVER],
            input=json.dumps(commands),
            env=environment | variables,
            cwd=project,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert driven.returncode == 0, driven.stderr
        return [Run(**each) for each in json.loads(driven.stdout)]

    return run


class Office:
    """A desk with a folder of files and a settings file."""

    def __init__(self, desk: Any, folder: Path) -> None:
        self.desk = desk
        self.folder = folder

    def define(self, text: str) -> None:
        (self.folder / "syncs.yaml").write_text(text)
        open_office(self.desk.engine)

    def stock(self, *rows: tuple[str, str, str], name: str = "stock") -> None:
        lines = ["Código;Nombre;Precio", *(";".join(row) for row in rows)]
        (self.folder / "in" / f"{name}.csv").write_text("\n".join(lines))

    def run(self, name: str = "stock", **more: Any) -> Any:
        return self.desk.ask("run_sync", {"sync": name, **more})

    def records(self, dataset: str = "stock") -> dict[str, Any]:
        found = Records(self.desk.engine.database, self.desk.engine.clock).page(dataset, "", 1000)
        return {key: document["values"] for key, document in found}

    def workers(self, *others: Agent) -> Workers:
        """Workers of this agent and others, on its engine."""
        self.desk.engine.init([data_sync, *others])
        return Workers(self.desk.engine, [data_sync, *others])

    @property
    def syncs(self) -> Syncs:
        return syncs_of(self.desk.engine)


@pytest.fixture
def office_of(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Office]]:
    """A data sync agent with a settings file and a folder of files, on a fresh desk."""
    engines = []

    def open_desk(text: str = "", **more: Any) -> Office:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "syncs.yaml").write_text(text)
        told = {"import_dir": tmp_path / "in", "syncs_file": tmp_path / "syncs.yaml"}
        engine = Engine(Settings(**settings.model_dump() | told | more))
        engines.append(engine)
        engine.init([data_sync])
        return Office(Desk(engine, data_sync), tmp_path)

    yield open_desk
    for engine in engines:
        engine.database.client.drop_database(settings.mongodb_database)
        engine.close()
