"""Who is alive, and how loaded: workers' heartbeats in Redis.

Keeps secret how liveness and load are told in one round trip. Nothing here has to
survive: a Redis that lost its memory is filled again by the next heartbeats.

| key                 | type   | holds                                 | goes              |
| ------------------- | ------ | ------------------------------------- | ----------------- |
| `{prefix}:workers`  | hash   | worker id -> `Heartbeat` as JSON      | 1 h after a beat  |
| `{prefix}:beats`    | zset   | worker id -> Redis' time of its beat  | 1 h after a beat  |
| `{prefix}:epoch`    | string | the epoch that MongoDB counts         | with Redis' memory|
| `{prefix}:finished` | pub/sub| ids of final tasks (`replies.py`)     | at once           |
| `{queue}[:{step}]`  | list   | Celery's messages, a list a priority  | as they are taken |

Heartbeats are written by `worker.py`; liveness is judged in Redis' time, not the hosts'.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.errors import BrokerUnavailable
from orchestrator.settings import Settings
from orchestrator.tasks import PRIORITY_STEPS, Priority

FORGET_AFTER_S = 3600.0
# Between the name of a queue and its priority step, in place of kombu's control characters.
SEPARATOR = ":"

# KEYS: workers, beats. ARGV: worker id, heartbeat, forget_after_s. Redis' own time scores it.
_BEAT = """
local now = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
"""


@dataclass(frozen=True)
class Heartbeat:
    """What a process that runs tasks tells of itself.

    With threads that is the worker; with prefork each of its children, with a slot each.
    """

    worker: str  # node name, pid and start: unique for ever
    node: str  # Celery's and Flower's name of it
    agents: dict[str, int]  # agent id -> slots
    running: dict[str, int] = field(default_factory=dict)  # agent id -> tasks held
    done: int = 0
    failed: int = 0
    mean_run_s: float = 0.0  # of the last minute or so
    trouble: str | None = None  # why it is alive but of no use
    started_at: str = ""
    version: str = ""
    pid: int = 0
    metrics: str | None = None  # "host:port" of its /metrics


_HEARTBEAT_FIELDS = Heartbeat.__dataclass_fields__.keys()


@dataclass(frozen=True)
class Worker:
    """A heartbeat as the registry judges it."""

    beat: Heartbeat
    silent_s: float
    offline: bool

    @property
    def status(self) -> str:
        """`idle`, `busy`, `offline` or `error`."""
        if self.offline:
            return "offline"
        if self.beat.trouble:
            return "error"
        return "busy" if any(self.beat.running.values()) else "idle"


@dataclass(frozen=True)
class Load:
    """One snapshot: all workers, and the queues' lengths by priority."""

    workers: tuple[Worker, ...]
    queues: dict[str, dict[Priority, int]]
    epoch: int | None  # None: Redis has lost its memory

    def live(self, agent_id: str) -> list[Worker]:
        """Workers that serve an agent and are of use."""
        return [
            worker
            for worker in self.workers
            if agent_id in worker.beat.agents and worker.status in ("idle", "busy")
        ]


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn a Redis that is out of reach into BrokerUnavailable."""
    try:
        yield
    except redis.RedisError as error:
        raise BrokerUnavailable() from error


def open_redis(settings: Settings) -> redis.Redis:
    """A client whose every command ends within the settings' timeout."""
    return redis.Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=settings.broker_timeout_s,
        socket_connect_timeout=settings.broker_timeout_s,
        health_check_interval=30,
        # The driver's default is three more tries with pauses: longer than a request waits.
        retry=Retry(NoBackoff(), 0),
    )


class Registry:
    """Heartbeats in, load out. Methods raise BrokerUnavailable when Redis does not answer."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._settings = settings
        self._workers = f"{settings.key_prefix}:workers"
        self._beats = f"{settings.key_prefix}:beats"
        self._epoch = f"{settings.key_prefix}:epoch"
        self._beat = client.register_script(_BEAT)

    def beat(self, heartbeat: Heartbeat) -> None:
        """Record a heartbeat under Redis' time."""
        with broker_errors():
            self._beat(
                keys=[self._workers, self._beats],
                args=[heartbeat.worker, json.dumps(asdict(heartbeat)), FORGET_AFTER_S],
            )

    def leave(self, worker: str) -> None:
        """Forget a worker that stopped as it should."""
        with broker_errors():
            self._redis.hdel(self._workers, worker)
            self._redis.zrem(self._beats, worker)

    def load(self, queues: list[str]) -> Load:
        """Snapshot of all workers and of these queues, in one round trip."""
        lanes = [(queue, priority) for queue in queues for priority in Priority]
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(self._beats, 0, -1, withscores=True)
            pipe.hgetall(self._workers)
            pipe.get(self._epoch)
            for queue, priority in lanes:
                pipe.llen(lane(queue, priority))
            (seconds, micros), beats, heartbeats, epoch, *lengths = pipe.execute()
        now = seconds + micros / 1e6
        lengths_of: dict[str, dict[Priority, int]] = {queue: {} for queue in queues}
        for (queue, priority), length in zip(lanes, lengths, strict=True):
            lengths_of[queue][priority] = length
        return Load(
            workers=tuple(self._workers_of(dict(beats), heartbeats, now)),
            queues=lengths_of,
            epoch=None if epoch is None else int(epoch),
        )

    def oldest(self, queues: list[str]) -> dict[str, dict[Priority, str]]:
        """The message that has been longest in each queue that is not empty, by priority."""
        lanes = [(queue, priority) for queue in queues for priority in Priority]
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            for queue, priority in lanes:
                pipe.lindex(lane(queue, priority), -1)
            messages = pipe.execute()
        found: dict[str, dict[Priority, str]] = {queue: {} for queue in queues}
        for (queue, priority), message in zip(lanes, messages, strict=True):
            if message is not None:
                found[queue][priority] = message
        return found

    def _workers_of(
        self, beats: dict[str, float], heartbeats: dict[str, Any], now: float
    ) -> Iterator[Worker]:
        for worker, told in heartbeats.items():
            silent_s = now - beats.get(worker, 0.0)
            # Redis' clock may have gone back: a beat from the future says nothing either.
            offline = abs(silent_s) > self._settings.worker_offline_s
            fields = json.loads(told)
            # A newer release may tell more, while both run.
            known = {name: fields[name] for name in _HEARTBEAT_FIELDS & fields.keys()}
            yield Worker(Heartbeat(**known), silent_s, offline)

    def set_epoch(self, epoch: int) -> None:
        """Mirror the epoch that MongoDB counts."""
        with broker_errors():
            self._redis.set(self._epoch, epoch)


def lane(queue: str, priority: Priority) -> str:
    """The Redis list of a queue's messages of one priority, as kombu names it."""
    step = PRIORITY_STEPS[priority]
    return f"{queue}{SEPARATOR}{step}" if step else queue
