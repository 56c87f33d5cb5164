"""Real servers for all tests: started once per test process, a fresh desk for each test.

TEST_REDIS_URL and TEST_MONGODB_URI, where set, name servers that run already: the integration
tests then use those. The acceptance tests kill their servers, and always start their own.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from pymongo.database import Database

from deploy.servers import MongoServer, RedisServer
from orchestrator.engine import Engine
from orchestrator.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class ServerElsewhere:
    """A server that is not ours to stop."""

    url: str

    def pause(self) -> None:
        pytest.skip("pauses its server, and this one runs elsewhere")

    def resume(self) -> None:
        """It was never paused."""


@pytest.fixture(scope="session")
def redis_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RedisServer | ServerElsewhere]:
    if url := os.environ.get("TEST_REDIS_URL"):
        yield ServerElsewhere(url.rstrip("/"))
        return
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mongo_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MongoServer | ServerElsewhere]:
    if uri := os.environ.get("TEST_MONGODB_URI"):
        yield ServerElsewhere(uri)
        return
    # Durability is the subject of acceptance tests, which start their own with sync.
    server = MongoServer(tmp_path_factory.mktemp("mongo"), sync=False).start()
    yield server
    server.stop()


@pytest.fixture
def settings(
    redis_server: RedisServer | ServerElsewhere, mongo_server: MongoServer | ServerElsewhere
) -> Settings:
    """A desk of its own: a fresh database and key prefix."""
    desk = f"t{secrets.token_hex(6)}"
    return Settings(
        redis_url=f"{redis_server.url}/0",
        mongodb_uri=mongo_server.url,
        mongodb_database=desk,
        key_prefix=desk,
        declarations_refresh_s=0,
        load_view_ms=0,
        quiet_ms=0,
        quiet_unwatched_ms=0,
    )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """The parts of one process, on a fresh desk with its indexes."""
    engine = Engine(settings)
    engine.init([])
    yield engine
    engine.database.client.drop_database(settings.mongodb_database)
    engine.close()


@pytest.fixture
def database(engine: Engine) -> Database[dict[str, object]]:
    return engine.database


@pytest.fixture(scope="session")
def eventually() -> Callable[..., T]:
    """Wait on a condition with a deadline: returns its first truthy value."""

    def wait(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
        deadline = time.monotonic() + timeout_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s: {what or condition}")
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def project() -> Path:
    return Path(__file__).resolve().parents[1]
