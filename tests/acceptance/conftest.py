"""The real processes: servers that may be killed, Celery workers, the front door."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import privacy
import pytest

from deploy.servers import MongoServer, RedisServer
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.tasks import Request, State, Task

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]


class Desk:
    """A front desk of its own: servers, workers, and an engine to act and look with."""

    def __init__(
        self,
        directory: Path,
        redis: RedisServer,
        mongo: MongoServer,
        eventually: Callable[..., object],
    ) -> None:
        self.eventually = eventually
        self.directory = directory
        self.redis_server = redis
        self.mongo_server = mongo
        name = f"a{secrets.token_hex(6)}"
        self.environment = {
            "REDIS_URL": f"{redis.url}/0",
            "MONGODB_URI": mongo.url,
            "MONGODB_DATABASE": name,
            "KEY_PREFIX": name,
            "AGENTS_PACKAGE": "probe",
            "LOAD_VIEW_MS": "0",
            "DECLARATIONS_REFRESH_S": "0",
            "PYTHONPATH": f"{HERE}:{PROJECT}",
        }
        self.settings = Settings(**{key.lower(): v for key, v in self.environment.items()})
        self.engine = Engine(self.settings)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ear = privacy.Ear(redis.url)

    def spawn(self, *command: str, log: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a Python module as a process of its own group, logging to a file."""
        with (self.directory / f"{log}.log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.directory,
                env=os.environ | self.environment | environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def worker(
        self, role: str, *options: str, package: str = "probe", app: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker and wait until the registry knows it."""
        before = {worker.beat.worker for worker in self.live()}
        process = self.spawn(
            "celery", "-A", app or f"{package}.{role}", "worker", *options, log=role
        )

        def there() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{role} ended:\n{self.log(role)[-3000:]}")
            new = [
                worker
                for worker in self.live()
                if worker.beat.worker not in before and worker.status in ("idle", "busy")
            ]
            return any(f"{role}_agent" in worker.beat.agents for worker in new)

        self.eventually(there, 30, f"a worker of {role}")
        return process

    def live(self) -> list:
        declared = self.engine.declarations.all(fresh=True)
        queues = [self.settings.queue(agent.role) for agent in declared.values()]
        return [w for w in self.engine.registry.load(queues).workers if not w.offline]

    def submit(self, type: str, payload: dict, **more) -> Task:
        task, _ = self.engine.coordinator.submit(Request(type=type, payload=payload, **more))
        return task

    def state(self, task: Task) -> State:
        return self.engine.store.get(task.id).state

    def finished(self, task: Task, timeout_s: float = 15.0) -> Task:
        """The task once it is final."""
        ended = self.engine.replies.wait(task.id, timeout_s)
        assert ended.state.final, f"{ended.state} after {timeout_s} s: {ended.timeline}"
        return ended

    def gate(self) -> dict[str, str]:
        """Payload of a task that waits until `open_gate`."""
        name = secrets.token_hex(4)
        return {
            "journal": str(self.directory / f"{name}.journal"),
            "gate": str(self.directory / f"{name}.gate"),
        }

    def journal(self, payload: dict[str, str]) -> list[str]:
        path = Path(payload["journal"])
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def open_gate(self, payload: dict[str, str]) -> None:
        Path(payload["gate"]).touch()

    def close(self) -> None:
        """End what was started, and hold it against what a log and Redis may show.

        Raises:
            AssertionError: a customer's words, name or phone, or a token, is where it must not be.
        """
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        heard = self.ear.close()
        leaks = privacy.leaks(
            {
                "a command to Redis": heard,
                "Redis": privacy.everything_in(self.engine.redis),
                "a log": privacy.logs_in(self.directory),
            },
            privacy.secrets_of(self.engine.database, self.environment),
        )
        self.engine.close()
        assert not leaks, "\n".join(leaks[:20])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, MongoServer]]:
    redis = RedisServer(tmp_path_factory.mktemp("redis")).start()
    mongo = MongoServer(tmp_path_factory.mktemp("mongo"), sync=True).start()
    yield redis, mongo
    redis.stop()
    mongo.stop()


@pytest.fixture(scope="module")
def make_desk(
    servers: tuple[RedisServer, MongoServer], eventually: Callable[..., object]
) -> Callable[[Path], Desk]:
    """A desk in a directory, for who shares one between tests; to be closed by its maker."""

    def make(directory: Path) -> Desk:
        desk = Desk(directory, *servers, eventually)
        desk.engine.init([])
        return desk

    return make


@pytest.fixture
def desk(tmp_path: Path, make_desk: Callable[[Path], Desk]) -> Iterator[Desk]:
    desk = make_desk(tmp_path)
    yield desk
    desk.close()
