"""What operators see: agents and their workers, queues, health. Reads only.

Every answer comes from the declarations (MongoDB), the last load snapshot (Redis) and
counts that are a few seconds old; none asks a worker.
"""

import datetime as dt
import threading
import time
from typing import Any

import redis
from pymongo.database import Database

from orchestrator.advance import RunState
from orchestrator.broker import published_at
from orchestrator.clock import Clock
from orchestrator.declarations import Declaration, DeclarationStore
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.registry import Load, Registry, Worker
from orchestrator.router import Router
from orchestrator.settings import Settings
from orchestrator.tasks import Priority, State, TaskStore, store_errors

Document = dict[str, Any]
COUNTS_FOR_S = 3.0
# Counting a long backlog takes its time: it gets this share of it at most.
COUNTING_SHARE = 0.05
RUNS_TOLD = 10_000


class Service:
    """The operators' view of the front desk."""

    def __init__(
        self,
        database: Database[Document],
        client: redis.Redis,
        store: TaskStore,
        declarations: DeclarationStore,
        registry: Registry,
        router: Router,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._clock = clock
        self._database = database
        self._redis = client
        self._store = store
        self._declarations = declarations
        self._registry = registry
        self._router = router
        self._settings = settings
        self._lock = threading.Lock()
        self._counts: dict[State, int] = {}
        self._count_again_at = float("-inf")

    def ready(self) -> dict[str, bool]:
        """Which dependencies answer: {"mongodb": ..., "redis": ...}."""
        answers = {}
        try:
            with store_errors():
                self._database.client.admin.command("ping")
            answers["mongodb"] = True
        except StoreUnavailable:
            answers["mongodb"] = False
        try:
            answers["redis"] = bool(self._redis.ping())
        except redis.RedisError:
            answers["redis"] = False
        return answers

    def rescue_age_s(self) -> float | None:
        """Seconds since a rescuer last showed itself; None if none ever did.

        Raises:
            StoreUnavailable: MongoDB does not answer.
        """
        with store_errors():
            lock = self._database["locks"].find_one({"_id": "rescue"})
        return None if lock is None else (self._clock.now() - lock["at"]).total_seconds()

    def agents(self) -> list[Document]:
        """Every declared agent with its status, tasks, slots and workers.

        Raises:
            StoreUnavailable: the declarations cannot be read.
        """
        load = self._load()
        declared = self._declarations.all()
        return [_agent(declared[agent_id], load) for agent_id in sorted(declared)]

    def agent(self, agent_id: str) -> Document:
        """One agent.

        Raises:
            AgentNotFound: nobody declared it.
        """
        return _agent(self._declarations.agent(agent_id), self._load())

    def agent_health(self, agent_id: str) -> Document:
        """One agent's status, why, and how old its last sign of life is."""
        agent = self.agent(agent_id)
        workers = agent["workers"]
        return {
            "agent_id": agent_id,
            "status": agent["status"],
            "healthy": agent["status"] in ("idle", "busy"),
            "last_heartbeat": agent["last_heartbeat"],
            "current_tasks": agent["current_tasks"],
            "max_concurrent_tasks": agent["max_concurrent_tasks"],
            "workers_online": sum(worker["status"] != "offline" for worker in workers),
            "problems": [worker["problem"] for worker in workers if worker["problem"]],
        }

    def queues(self) -> Document:
        """Depth and age of each agent's queue by priority, and what its workers hold.

        An age, in seconds, is that of the message that has waited longest since it was
        published; null where none waits.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        load = self._router.load()
        declared = sorted(self._declarations.all().values(), key=lambda agent: agent.role)
        oldest = self._registry.oldest([self._settings.queue(agent.role) for agent in declared])
        now = self._clock.now().timestamp()
        queues = []
        for agent in declared:
            name = self._settings.queue(agent.role)
            depths = load.queues.get(name, {})
            ages = {
                priority: round(max(0.0, now - at), 3)
                for priority, message in oldest[name].items()
                if (at := published_at(message)) is not None
            }
            queues.append(
                {
                    "queue": name,
                    "agent_id": agent.agent_id,
                    "depth": sum(depths.values()),
                    "by_priority": {priority.value: depth for priority, depth in depths.items()},
                    "oldest_s": max(ages.values(), default=None),
                    "oldest_s_by_priority": {
                        priority.value: ages.get(priority) for priority in Priority
                    },
                    "held": sum(
                        worker.beat.running.get(agent.agent_id, 0) for worker in load.workers
                    ),
                }
            )
        return {"queue_size": sum(queue["depth"] for queue in queues), "queues": queues}

    def status(self) -> Document:
        """The whole desk: operational, degraded (some agent or dependency is not), or down.

        Raises:
            StoreUnavailable: MongoDB does not answer.
        """
        agents = self.agents()
        load = self._load()
        counts = self.counts()
        online = sum(agent["status"] in ("idle", "busy") for agent in agents)
        rescue_age_s = self.rescue_age_s()
        rescued = rescue_age_s is not None and rescue_age_s < 2 * self._settings.lease_s
        if load is None or online == 0:
            status = "down"
        elif online < len(agents) or not rescued:
            status = "degraded"
        else:
            status = "operational"
        pending = counts[State.BLOCKED] + counts[State.QUEUED] + counts[State.WAITING]
        orchestrator = next((a for a in agents if a["agent_id"] == "orchestrator_agent"), None)
        return {
            "status": status,
            "orchestrator": {
                "status": orchestrator["status"] if orchestrator else "offline",
                "rescuer": "working" if rescued else "nobody rescues",
                "rescue_age_s": None if rescue_age_s is None else round(rescue_age_s, 1),
            },
            "health": {
                "agents": {
                    "total": len(agents),
                    "online": online,
                    "offline": len(agents) - online,
                },
                "tasks": {
                    "total": sum(counts.values()),
                    "pending": pending,
                    "running": counts[State.RUNNING],
                    "completed": counts[State.COMPLETED],
                    "failed": counts[State.FAILED],
                    "cancelled": counts[State.CANCELLED],
                },
                "queue_size": 0
                if load is None
                else sum(sum(depths.values()) for depths in load.queues.values()),
            },
            "agents": agents,
            "workflows": self._unfinished_runs(),
        }

    def _unfinished_runs(self) -> dict[str, int]:
        """How many workflow runs are in each state that is not final, each counted to RUNS_TOLD."""
        with store_errors():
            return {
                state.value: self._database["runs"].count_documents(
                    {"state": state.value}, limit=RUNS_TOLD
                )
                for state in RunState
                if not state.final
            }

    def dead_letters(self) -> int:
        """How many failed tasks nobody has replayed or discarded, counted to 10,000.

        Raises:
            StoreUnavailable: MongoDB does not answer.
        """
        return self._store.dead_letters(10_000)

    def workers(self) -> list[Worker]:
        """Every worker that was heard of within the hour.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        return list(self._router.load().workers)

    def _load(self) -> Load | None:
        try:
            return self._router.load()
        except BrokerUnavailable:
            return None

    def counts(self) -> dict[State, int]:
        """Tasks that are kept, by state; some seconds old.

        Raises:
            StoreUnavailable: MongoDB does not answer.
        """
        with self._lock:
            began = time.monotonic()
            if began >= self._count_again_at:
                self._counts = self._store.counts()
                counted = time.monotonic()
                pause_s = max(COUNTS_FOR_S, (counted - began) / COUNTING_SHARE)
                self._count_again_at = counted + pause_s
            return self._counts


def _agent(declared: Declaration, load: Load | None) -> Document:
    processes = [
        worker
        for worker in (load.workers if load else ())
        if declared.agent_id in worker.beat.agents
    ]
    workers = _by_node(declared.agent_id, processes)
    live = [worker for worker in workers if worker["status"] in ("idle", "busy")]
    statuses = {worker["status"] for worker in workers}
    order = ("busy", "idle", "error", "offline")
    return {
        "agent_id": declared.agent_id,
        "name": declared.name,
        "role": declared.role,
        "capabilities": sorted(declared.capabilities),
        "task_types": sorted(declared.task_types),
        "status": next((status for status in order if status in statuses), "offline"),
        "current_tasks": sum(worker["current_tasks"] for worker in live),
        "max_concurrent_tasks": sum(worker["slots"] for worker in live),
        "slots_per_worker": declared.slots,
        "registered_at": _iso(declared.registered_at),
        "last_heartbeat": max((w["last_heartbeat"] for w in workers), default=None),
        "metadata": declared.metadata,
        "workers": workers,
    }


def _by_node(agent_id: str, processes: list[Worker]) -> list[Document]:
    """A Celery node is one worker, also when its pool is several processes."""
    nodes: dict[str, list[Worker]] = {}
    for process in processes:
        nodes.setdefault(process.beat.node, []).append(process)
    workers = []
    for node, members in sorted(nodes.items()):
        on = [member for member in members if not member.offline]
        statuses = {member.status for member in on} or {"offline"}
        silent_s = min(member.silent_s for member in members)
        seen = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=silent_s)
        problems = [member.beat.trouble for member in on if member.beat.trouble]
        if not on:
            problems = [f"no heartbeat for {silent_s:.0f} s"]
        workers.append(
            {
                "worker": node,
                "status": next(s for s in ("error", "busy", "idle", "offline") if s in statuses),
                "slots": sum(member.beat.agents[agent_id] for member in on),
                "current_tasks": sum(member.beat.running.get(agent_id, 0) for member in on),
                "completed": sum(member.beat.done for member in members),
                "failed": sum(member.beat.failed for member in members),
                "mean_run_s": round(max(member.beat.mean_run_s for member in members), 4),
                "last_heartbeat": _iso(seen),
                "started_at": min(member.beat.started_at for member in members),
                "version": members[0].beat.version,
                "processes": len(on),
                "problem": "; ".join(problems) or None,
            }
        )
    return workers


def _iso(time_utc: dt.datetime | None) -> str | None:
    return None if time_utc is None else time_utc.isoformat(timespec="milliseconds")
