"""What both sides stand on, and how it is broken and mended: servers, processes, network, clock.

Imports nothing of ours: Celery alone must be Celery alone, and not run on our transport.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis

from deploy.servers import MongoServer, RedisServer
from torture.proxy import Proxy
from torture.schedule import Fault
from torture.supervisor import Supervisor

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
START_S = 90.0
# Enough for the load while the other worker of the role is away.
CHILDREN = 3
# Farther than any lease; and back by as much, so that it does not wander off.
JUMP_S = 30.0


@dataclass(frozen=True)
class Applied:
    """A fault as it came to be, in this process' monotonic time."""

    kind: str
    target: str
    began_at: float
    ended_at: float


@dataclass(frozen=True)
class Open:
    """A fault that is to be mended at `due_s` of the run."""

    fault: Fault
    began_at: float
    due_s: float
    mend: Callable[[], object]


class Servers:
    """The embedded servers, and a way to each through which one worker's network can be cut."""

    def __init__(self, directory: Path, *, mongo: bool) -> None:
        self.redis = RedisServer(_made(directory / "redis")).start()
        self.mongo = MongoServer(_made(directory / "mongo"), sync=True).start() if mongo else None
        self.proxies: dict[str, list[Proxy]] = {}

    def through_proxies(self, name: str) -> Mapping[str, str]:
        """The environment of a worker whose network can be cut."""
        redis_proxy = Proxy(self.redis.port)
        self.proxies[name] = [redis_proxy]
        environment = {"REDIS_URL": self.redis_url(redis_proxy.port)}
        if self.mongo is not None:
            mongo_proxy = Proxy(self.mongo.port)
            self.proxies[name].append(mongo_proxy)
            port = str(self.mongo.port)
            environment["MONGODB_URI"] = self.mongo.url.replace(port, str(mongo_proxy.port))
        return environment

    @staticmethod
    def redis_url(port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"

    def close(self) -> None:
        """End all of them."""
        for proxies in self.proxies.values():
            for proxy in proxies:
                proxy.close()
        self.redis.stop()
        if self.mongo is not None:
            self.mongo.stop()


class Breaker:
    """Breaks and mends by the kinds' names. `applied` is what was done; a fault that cannot
    be done raises, and so fails the run: a schedule that did not happen proves nothing."""

    def __init__(self, servers: Servers, supervisor: Supervisor, clock_file: Path) -> None:
        self._servers = servers
        self._supervisor = supervisor
        self._clock_file = clock_file
        self._jumped_s = 0.0
        self._clock_file.write_text("0")
        self._open: list[Open] = []
        self.applied: list[Applied] = []

    def ready(self, fault: Fault) -> bool:
        """Whether the process that it wants is there to be broken: it may be on its way."""
        if fault.target in ("redis", "mongo", "clock"):
            return True
        supervisor = self._supervisor
        if "child" in fault.kind and not supervisor.has_children(fault.target):
            return False
        return supervisor.alive(fault.target)

    def free(self, fault: Fault) -> bool:
        """Whether nothing else is broken in what it wants to break: some begin late."""
        return all(fault.target != each.fault.target for each in self._open)

    @property
    def busy(self) -> bool:
        """Whether something is broken that will be mended."""
        return bool(self._open)

    def begin(self, fault: Fault, now_s: float) -> None:
        """Break. One that begins late lasts as long as planned."""
        began_at = time.monotonic()
        mend = self._break(fault)
        lasts_s = fault.ends_s - fault.at_s
        if lasts_s:
            self._open.append(Open(fault, began_at, now_s + lasts_s, mend))
        else:
            self.applied.append(Applied(fault.kind, fault.target, began_at, time.monotonic()))

    def mend_due(self, now_s: float) -> list[Fault]:
        """Mend what has lasted long enough; returns it."""
        due = [each for each in self._open if each.due_s <= now_s]
        for each in due:
            each.mend()
            self._open.remove(each)
            fault = each.fault
            self.applied.append(Applied(fault.kind, fault.target, each.began_at, time.monotonic()))
        return [each.fault for each in due]

    def _break(self, fault: Fault) -> Callable[[], object]:
        """Do it; returns what mends it."""
        supervisor, redis_server, mongo = (
            self._supervisor,
            self._servers.redis,
            self._servers.mongo,
        )
        match fault.kind.partition(","):
            case ("front door killed", *_):
                supervisor.kill_group(fault.target)
            case ("worker killed" | "prefork worker killed" | "beat killed", *_):
                supervisor.kill(fault.target)
            case ("front door's parent killed", *_):
                supervisor.kill(fault.target)
            case ("pool child killed" | "front door's child killed", *_):
                supervisor.kill_child(fault.target, fault.draw)
            case ("worker frozen", *_):
                pid = supervisor.freeze(fault.target)
                return lambda: supervisor.thaw(pid)
            case ("worker cut off", _, how):
                proxies = self._servers.proxies[fault.target]
                for proxy in proxies:
                    proxy.refuse() if how == " refused" else proxy.silence()
                return lambda: [proxy.mend() for proxy in proxies]
            case ("Redis killed", *_):
                redis_server.kill()
                return redis_server.start
            case ("Redis stopped for long", *_):
                redis_server.stop()
                return redis_server.start
            case ("Redis hangs", *_):
                redis_server.pause()
                return redis_server.resume
            case ("Redis emptied", *_):
                self._redis(lambda client: client.flushall())
            case ("Redis connections killed", *_):
                self._redis(_kill_connections)
            case ("MongoDB killed", *_):
                mongo.kill()
                return mongo.start
            case ("MongoDB stopped for long", *_):
                mongo.stop()
                return mongo.start
            case ("MongoDB hangs", *_):
                mongo.pause()
                return mongo.resume
            case ("clock jumps ahead", *_):
                self._jump(JUMP_S)
            case ("clock jumps back", *_):
                self._jump(-JUMP_S)
            case _:
                raise ValueError(f"no such fault: {fault.kind}")
        return lambda: None

    def _redis(self, do: Callable[[redis.Redis], object]) -> None:
        with redis.Redis(port=self._servers.redis.port, socket_timeout=5) as client:
            do(client)

    def _jump(self, by_s: float) -> None:
        self._jumped_s += by_s
        # In one step: a reader must never find half a number.
        fresh = self._clock_file.with_suffix(".new")
        fresh.write_text(str(self._jumped_s))
        fresh.rename(self._clock_file)


def _kill_connections(client: redis.Redis) -> None:
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory
