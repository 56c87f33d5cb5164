"""Our system on the stage: the front door, beat, and four workers on servers of their own.

One worker is a pool of processes, the others of threads; two reach their servers through
proxies.
"""

import datetime as dt
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

from deploy.servers import free_port
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from torture.clockwork import OFFSET_VARIABLE
from torture.http_way import Http
from torture.load import Way
from torture.oracle import Oracle
from torture.schedule import BEHIND_PROXIES, PREFORK, WORKERS
from torture.stage import CHILDREN, HERE, PROJECT, START_S, Breaker, Servers
from torture.supervisor import Program, Supervisor
from torture.verdict import Stored
from torture.witness import ORACLE_VARIABLE

OPEN_STATES = ["blocked", "queued", "running", "waiting"]
OPEN_ENTRIES = ["pending", "sending"]
LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


class Desk:
    """Engine, processes and servers of one run."""

    name = "ours"

    def __init__(self, directory: Path, oracle: Oracle, settings: Mapping[str, str]) -> None:
        self._directory = directory
        self.servers = Servers(directory, mongo=True)
        self._token = secrets.token_hex(16)
        self._door_port = free_port()
        clock_file = directory / "clock.offset"
        name = f"torture{secrets.token_hex(4)}"
        environment = {
            "REDIS_URL": Servers.redis_url(self.servers.redis.port),
            "MONGODB_URI": self.servers.mongo.url,
            "MONGODB_DATABASE": name,
            "KEY_PREFIX": name,
            "AGENTS_PACKAGE": "torture.agents",
            "OPERATOR_TOKEN": self._token,
            "PORT": str(self._door_port),
            "PYTHONPATH": f"{HERE.parent}:{PROJECT}",
            ORACLE_VARIABLE: oracle.url,
            OFFSET_VARIABLE: str(clock_file),
        } | dict(settings)
        self.settings = Settings(
            **{
                key.lower(): value
                for key, value in environment.items()
                if key.lower() in Settings.model_fields
            }
        )
        self.engine = Engine(self.settings)
        self.supervisor = Supervisor(directory, environment)
        self.breaker = Breaker(self.servers, self.supervisor, clock_file)

    def programs(self) -> list[Program]:
        """Front door, workers and beat."""
        celery = ("celery", "-A")
        config = str(PROJECT / "deploy" / "gunicorn.conf.py")
        programs = [
            Program("door", ("gunicorn", "--config", config, "torture.door:app"), {}),
            Program("beat", (*celery, "torture.agents.work", "beat"), {}),
        ]
        for name in WORKERS:
            role = name.partition("-")[0]
            pool = ("-P", "prefork", "-c", str(CHILDREN)) if name == PREFORK else ()
            command = (*celery, f"torture.agents.{role}", "worker", *pool)
            cut = self.servers.through_proxies(name) if name in BEHIND_PROXIES else {}
            programs.append(Program(name, command, cut))
        return programs

    def start(self) -> None:
        """Start everything and wait until it is of use.

        Raises:
            TimeoutError: it is not; the logs tell why.
        """
        for program in self.programs():
            self.supervisor.start(program)
        deadline = time.monotonic() + START_S
        while not self._ready():
            self.supervisor.tick()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the desk was not ready within {START_S:.0f} s")
            time.sleep(0.2)

    def _ready(self) -> bool:
        try:
            there = httpx2.get(f"{self._door}/readyz", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False
        queues = [self.settings.queue("talk"), self.settings.queue("work")]
        of_use = [
            worker.beat
            for worker in self.engine.registry.load(queues).workers
            if worker.status in ("idle", "busy")
        ]
        # A pool's children beat for themselves.
        return there and len(of_use) >= len(WORKERS) - 1 + CHILDREN

    @property
    def _door(self) -> str:
        return f"http://127.0.0.1:{self._door_port}"

    def open_way(self) -> Way:
        """For one client."""
        return Http(self._door, self._token)

    def settled(self) -> bool:
        """Whether every task is final and nothing is left to be sent."""
        database = self.engine.database
        return not (
            database["tasks"].count_documents({"state": {"$in": OPEN_STATES}}, limit=1)
            or database["outbox"].count_documents({"state": {"$in": OPEN_ENTRIES}}, limit=1)
            or database["sessions"].count_documents({"unsent_at": {"$gt": LONG_AGO}}, limit=1)
        )

    def stored(self) -> dict[str, Stored]:
        """Every task as the store has it."""
        wanted = {"state": 1, "attempts": 1, "result": 1, "error": 1, "timeline.event": 1}
        return {
            document["_id"]: Stored(
                id=document["_id"],
                state=document["state"],
                attempts=document.get("attempts", 0),
                result=document.get("result"),
                error=document.get("error"),
                events=tuple(event["event"] for event in document["timeline"]),
            )
            for document in self.engine.database["tasks"].find({}, wanted)
        }

    def story(self, task_id: str) -> list[str]:
        """What happened to a task, a line each."""
        return [
            f"{event.pop('at'):%H:%M:%S.%f} {event.pop('event')} {event or ''}"
            for event in map(dict, self.engine.store.get(task_id).timeline)
        ]

    def entries(self) -> dict[str, str]:
        """Key of each outgoing effect -> its state in the outbox."""
        found = self.engine.database["outbox"].find({}, {"body": 1, "state": 1})
        return {entry["body"]["key"]: entry["state"] for entry in found}

    def left_behind(self) -> list[str]:
        """Keys in Redis that would grow for ever, and processes that nobody looks after."""
        client, prefix = self.engine.redis, self.settings.key_prefix
        # A heartbeat is forgotten an hour after it was the last of its worker.
        known = {f"{prefix}:{name}" for name in ("epoch", "workers", "beats")}
        lengths = {"list": client.llen, "hash": client.hlen, "zset": client.zcard}
        lengths |= {"set": client.scard, "string": lambda _: 1}
        found = []
        for key in sorted(client.scan_iter(count=1000)):
            kind = client.type(key)
            if key not in known:
                found.append(f"Redis key {key} ({kind} of {lengths[kind](key)})")
        return found + [f"process {line}" for line in self.supervisor.orphans()]

    def close(self) -> None:
        """Kill and stop everything."""
        self.supervisor.close()
        self.engine.close()
        self.servers.close()
