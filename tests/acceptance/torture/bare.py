"""The other side: Celery alone on the same Redis, with everything that is recommended.

Late acknowledgement, rejection when a worker is lost, a prefetch of one, a short visibility
timeout (longer than any task) that is looked at often, retries of publishing. What it has no
word for is left to it as users write it: the order of a session is the order of its queue, an
effect is had by the handler, and a client that got no answer sends again under the same task
id. A task that kills its process would be delivered for ever, and is left out.
"""

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kombu.exceptions
import redis
from celery import Celery

from torture import witness
from torture.load import BLIND, SURE, Answer, Job, Way
from torture.oracle import Oracle
from torture.schedule import BEHIND_PROXIES, PREFORK, WORKERS
from torture.stage import CHILDREN, HERE, PROJECT, START_S, Breaker, Servers
from torture.supervisor import Program, Supervisor
from torture.verdict import Stored
from torture.witness import ORACLE_VARIABLE

URL_VARIABLE = "REDIS_URL"
VISIBLE_AGAIN_S = 15
PARTS = 2
LATE_S = 1
RETRIES = 3
# With nothing queued and nothing held, what has not come by then will not come.
QUIET_S = 2.0 * VISIBLE_AGAIN_S


def make_bare_app(url: str) -> Celery:
    """A Celery app on this Redis."""
    app = Celery("bare", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_default_queue="work",
        task_routes={"talk": {"queue": "talk"}},
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        redis_socket_keepalive=True,
        redis_retry_on_timeout=True,
        broker_transport_options={
            "visibility_timeout": VISIBLE_AGAIN_S,
            "unacked_mutex_expire": 5,
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            "health_check_interval": 10,
        },
    )
    # A session's message and a task are done alike; queues of their own as on our side.
    for name in ("talk", "work"):
        app.task(_run, name=name, bind=True)
    app.task(_part, name="part")
    app.task(_finish, name="finish")
    return app


def _run(self: Any, key: str, kind: str, pause_ms: int) -> None:
    witness.began(key, task=key, phase=0, failures=self.request.retries)
    if "asking" in kind:
        part, finish = (self.app.tasks[name] for name in ("part", "finish"))
        parts = [part.si(f"{key}/part{n}", pause_ms) for n in range(PARTS)]
        chain = parts[0]
        for following in [*parts[1:], finish.si(key)]:
            chain |= following
        raise self.replace(chain)
    time.sleep(pause_ms / 1000)
    if "stumbling" in kind and self.request.retries == 0:
        raise self.retry(countdown=1, max_retries=RETRIES)
    if kind == "refusing":
        return
    witness.effect(key, task=key)
    if "sending" in kind:
        for channel in (SURE, BLIND):
            once = {"attempt": secrets.token_hex(4)} if channel == BLIND else {}
            witness.effect(f"{key}/{channel}", task=key, **once)


def _part(key: str, pause_ms: int) -> None:
    witness.began(key, task=key, phase=0, failures=0)
    time.sleep(pause_ms / 1000)
    witness.effect(key, task=key)


def _finish(key: str) -> None:
    witness.effect(key, task=key)


class Direct:
    """One client that publishes by itself."""

    def __init__(self, url: str) -> None:
        self._app = make_bare_app(url)

    def send(self, job: Job) -> Answer | None:
        """One try, which Celery repeats by its own policy; None where it raised."""
        task = self._app.tasks["talk" if job.session else "work"]
        try:
            task.apply_async(
                (job.key, job.kind, job.pause_ms),
                task_id=job.key,
                expires=LATE_S if job.kind == "late" else None,
            )
        except (kombu.exceptions.OperationalError, redis.RedisError, OSError):
            return None
        return Answer(time.monotonic(), 202, job.key)

    def cancel(self, answer: Answer) -> None:
        """Ask once for its end, come what may."""
        try:
            self._app.control.revoke(answer.task)
        except (kombu.exceptions.OperationalError, redis.RedisError, OSError):
            return  # then it is not cancelled

    def close(self) -> None:
        """Close connections."""
        self._app.close()


class BareDesk:
    """Bare Celery on the stage; the same workers, with the same slots."""

    name = "bare Celery"

    def __init__(self, directory: Path, oracle: Oracle, settings: Mapping[str, str]) -> None:
        self._oracle = oracle
        self.servers = Servers(directory, mongo=False)
        self._url = Servers.redis_url(self.servers.redis.port)
        environment = {
            URL_VARIABLE: self._url,
            "PYTHONPATH": f"{HERE.parent}:{PROJECT}",
            ORACLE_VARIABLE: oracle.url,
        }
        self.supervisor = Supervisor(directory, environment)
        self.breaker = Breaker(self.servers, self.supervisor, directory / "clock.offset")
        self._app = make_bare_app(self._url)
        self._redis = redis.Redis.from_url(self._url)
        self._quiet_since = time.monotonic()
        self._effects = 0

    def start(self) -> None:
        """Start the workers and wait until they answer.

        Raises:
            TimeoutError: they do not; the logs tell why.
        """
        for name in WORKERS:
            pool = ("-P", "prefork", "-c", str(CHILDREN)) if name == PREFORK else ("-P", "threads")
            slots = () if name == PREFORK else ("-c", "8")
            queue = name.partition("-")[0]
            command = ("celery", "-A", "torture.bare", "worker", "-n", f"{name}@%h", "-Q", queue)
            cut = self.servers.through_proxies(name) if name in BEHIND_PROXIES else {}
            self.supervisor.start(Program(name, (*command, *pool, *slots), cut))
        deadline = time.monotonic() + START_S
        while len(self._app.control.ping(timeout=2.0, limit=len(WORKERS))) < len(WORKERS):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the workers did not answer within {START_S:.0f} s")

    def open_way(self) -> Way:
        """For one client."""
        return Direct(self._url)

    def settled(self) -> bool:
        """Whether nothing is queued or held, and nothing has happened for long enough."""
        now = time.monotonic()
        left = self._redis.llen("talk") + self._redis.llen("work") + self._redis.hlen("unacked")
        if left or self._oracle.effects > self._effects:
            self._effects, self._quiet_since = self._oracle.effects, now
        return now - self._quiet_since > QUIET_S

    def stored(self) -> Mapping[str, Stored] | None:
        """It stores no tasks."""
        return None

    def entries(self) -> Mapping[str, str] | None:
        """It has no outbox."""
        return None

    def story(self, task_id: str) -> list[str]:
        """Nobody knows."""
        return []

    def left_behind(self) -> list[str]:
        """What it leaves in Redis is its own affair."""
        return []

    def close(self) -> None:
        """Kill and stop everything."""
        self.supervisor.close()
        self._redis.close()
        self._app.close()
        self.servers.close()


if URL_VARIABLE in os.environ and ORACLE_VARIABLE in os.environ:
    app = make_bare_app(os.environ[URL_VARIABLE])
