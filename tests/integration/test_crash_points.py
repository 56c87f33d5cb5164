"""SIGKILL before and after every single write: nothing is lost, doubled, or out of order.

What is done is done by a process that kills itself at its n-th write to MongoDB, for every n
until it gets through. Then another process (this one) rescues and works on, with time advanced.
"""

import dataclasses
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.broker import published_at
from orchestrator.engine import Engine
from orchestrator.registry import lane
from orchestrator.tasks import Priority, Request, State, Task
from tests.integration import crashing
from tests.integration.crashing import PARTS, effects_key, execute

MOST_WRITES = 40
STEP_S = 4.0
ROUNDS = 30


@dataclasses.dataclass
class World:
    """One desk, the process that dies, and this one that goes on."""

    runtime: Any
    crashes: subprocess.Popen[str]
    ahead_s: float = 0.0

    @property
    def engine(self) -> Engine:
        return self.runtime.engine

    def clear(self) -> None:
        """A desk without tasks, at the time that it is."""
        engine = self.engine
        for name in ("tasks", "locks", "epochs"):
            engine.database[name].delete_many({})
        for key in engine.redis.scan_iter(f"{engine.settings.key_prefix}*"):
            engine.redis.delete(key)
        self.ahead_s = 0.0
        self.rescuer = engine.rescuer("survivor", eager=True)
        self.rescuer.tick()
        self.rescuer.release()

    def submit(self, type: str, what: str, **more: Any) -> Task:
        fails = more.pop("fails", False)
        request = Request(type, {"what": what, "fails": fails}, caller="test", **more)
        return self.engine.coordinator.submit(request)[0]

    def task(self, task: Task) -> Task:
        return self.engine.store.get(task.id)

    def run(self, task: Task) -> Task:
        """One attempt in this process."""
        execute(self.runtime, task.id, self.task(task).fence)
        return self.task(task)

    def crash(self, write: int, when: str, **order: Any) -> bool:
        """Whether the process that did it was killed on the way; False: it came to its end."""
        settings = {
            name: value
            for name, value in self.engine.settings.model_dump(mode="json").items()
            if name in ("redis_url", "mongodb_uri", "mongodb_database", "key_prefix")
        } | {"declarations_refresh_s": 0, "load_view_ms": 0, "quiet_ms": 0}
        told = {"point": [write, when], "settings": settings, **order}
        print(json.dumps(told), file=self.crashes.stdin, flush=True)
        answer = self.crashes.stdout.readline().strip()
        assert answer in ("killed", "done"), answer
        return answer == "killed"

    def take(self) -> tuple[str, int] | None:
        """The next message, as a worker would be given it."""
        for priority in Priority:
            message = self.engine.redis.rpop(lane(self.engine.settings.queue("probe"), priority))
            if message is not None:
                assert published_at(message)
                task_id, fence = json.loads(message)["headers"]["id"].split(":")
                return task_id, int(fence)
        return None

    def settle(self) -> None:
        """Rescue and work until everything is final."""
        tasks = self.engine.database["tasks"]
        final = [state.value for state in State if state.final]
        for _ in range(ROUNDS):
            self.ahead_s += STEP_S
            self.rescuer.tick()
            while (message := self.take()) is not None:
                execute(self.runtime, *message)
            if not tasks.count_documents({"state": {"$nin": final}}):
                return
        left = [(d["type"], d["state"]) for d in tasks.find({"state": {"$nin": final}})]
        raise AssertionError(f"not final after {ROUNDS * STEP_S:.0f} s: {left}")

    def effects(self) -> list[str]:
        return self.engine.redis.lrange(effects_key(self.engine.settings), 0, -1)

    def steps(self) -> list[str]:
        """The effects, an uninterrupted repetition of one left out."""
        seen = self.effects()
        return [name for n, name in enumerate(seen) if n == 0 or seen[n - 1] != name]

    def outcomes(self) -> list[str]:
        return sorted(document["state"] for document in self.engine.database["tasks"].find())


@pytest.fixture(scope="module")
def crashes(project: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "tests.integration.crashing"]
    child = subprocess.Popen(
        argv, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield child
    child.stdin.close()
    child.wait(timeout=10)
    child.stdout.close()


@pytest.fixture
def world(settings, crashes, monkeypatch) -> Iterator[World]:
    world = World(crashing.make_runtime(settings), crashes)
    engine = world.engine
    engine.init([crashing.agent])
    clock, monotonic, read = engine.clock, engine.clock.monotonic, engine.store.read_clock
    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + world.ahead_s)
    monkeypatch.setattr(engine.store, "read_clock", lambda: None if world.ahead_s else read())
    clock._base, clock._base_monotonic = dt.datetime.now(dt.UTC), clock.monotonic()
    yield world
    engine.database.client.drop_database(settings.mongodb_database)
    engine.close()


def at_every_write(world: World, case: Callable[[], dict[str, Any]], after: Callable[[], None]):
    """For each write of what `case` prepares and orders: kill there, settle, and see.

    Both a kill just before and one just after: between two writes lie messages and other effects.
    """
    for write in range(1, MOST_WRITES):
        for when in ("before", "after"):
            world.clear()
            killed = world.crash(write, when, **case())
            try:
                world.settle()
                after()
            except AssertionError as error:
                error.add_note(f"killed {when} its write number {write}")
                raise
            if not killed:
                assert write > 1, "nothing was killed at all"
                return
    raise AssertionError(f"more than {MOST_WRITES} writes")


def in_order(world: World, *names: str) -> None:
    """Every effect took place, runs of one never between those of another."""
    assert world.steps() == list(names)


def test_accepting(world):
    def case():
        request = {"type": "work", "payload": {"what": "a"}, "caller": "test"}
        world.request = request | {"ordering_key": "k", "idempotency_key": "1"}
        return {"do": "accept", "request": world.request}

    def after():
        # Its client got no answer, and sends it again.
        world.engine.coordinator.submit(Request(**world.request))
        world.settle()
        assert world.outcomes() == ["completed"]
        in_order(world, "a")

    at_every_write(world, case, after)


def test_running_a_task_that_others_of_its_key_wait_for(world):
    def case():
        first, *_ = (world.submit("work", what, ordering_key="k") for what in "abc")
        return {"do": "run", "task_id": first.id, "fence": world.task(first).fence}

    def after():
        assert world.outcomes() == ["completed"] * 3
        in_order(world, "a", "b", "c")

    at_every_write(world, case, after)


def test_handing_over(world):
    def case():
        whole = world.submit("assemble", "car", ordering_key="k")
        world.submit("work", "later", ordering_key="k")
        return {"do": "run", "task_id": whole.id, "fence": world.task(whole).fence}

    at_every_write(world, case, lambda: assembled(world))


def assembled(world: World) -> None:
    assert world.outcomes() == ["completed"] * 4
    parts, rest = world.steps()[:-2], world.steps()[-2:]
    assert sorted(set(parts)) == sorted(f"car/{part}" for part in PARTS)
    assert rest == ["car", "later"]


def test_ending_the_last_part(world):
    def case():
        whole = world.submit("assemble", "car", ordering_key="k")
        world.submit("work", "later", ordering_key="k")
        first, last = (world.engine.store.get(id) for id in world.run(whole).child_ids())
        world.run(first)
        return {"do": "run", "task_id": last.id, "fence": last.fence}

    at_every_write(world, case, lambda: assembled(world))


def test_resuming(world):
    def case():
        whole = world.submit("assemble", "car", ordering_key="k")
        world.submit("work", "later", ordering_key="k")
        for child_id in world.run(whole).child_ids():
            world.run(world.engine.store.get(child_id))
        return {"do": "run", "task_id": whole.id, "fence": world.task(whole).fence}

    at_every_write(world, case, lambda: assembled(world))


def test_cancelling_what_has_handed_over(world):
    def case():
        whole = world.submit("assemble", "car", ordering_key="k")
        world.submit("work", "later", ordering_key="k")
        world.run(whole)
        return {"do": "cancel", "task_id": whole.id}

    def after():
        outcomes = world.outcomes()
        if outcomes == ["completed"] * 4:  # it had not begun
            return assembled(world)
        # Nobody needs the parts any more.
        assert outcomes == ["cancelled"] * 3 + ["completed"]
        assert world.effects() == ["later"]

    at_every_write(world, case, after)


def test_replaying(world):
    def case():
        whole = world.submit("assemble", "car", fails=True, ordering_key="k")
        for child_id in world.run(whole).child_ids():
            world.run(world.engine.store.get(child_id))
        assert world.run(whole).dead
        world.submit("work", "later", ordering_key="k")
        world.engine.redis.set(f"{effects_key(world.engine.settings)}:mended", 1)
        return {"do": "replay", "task_id": whole.id}

    def after():
        if "failed" in world.outcomes():  # it had not begun
            assert world.outcomes() == ["completed", "failed", "failed", "failed"]
            return
        assert world.outcomes() == ["completed"] * 4
        assert sorted(set(world.effects())) == ["car", "car/bell", "car/wheel", "later"]
        assert world.steps().count("car") == 1

    at_every_write(world, case, after)


def test_rescuing(world):
    """One pass that takes back, publishes a retry, promotes, resumes, and fills an empty Redis."""

    def case():
        store = world.engine.store
        for n in range(2):
            world.submit("work", f"plain {n}")
        lost = world.submit("work", "lost")
        assert store.claim(lost.id, 0, "dead@there")
        retried = world.submit("work", "retried")
        store.retry(store.claim(retried.id, 0, "dead@there"), {"code": "x"}, 0.0)
        ended = world.submit("work", "ended", ordering_key="k")
        world.submit("work", "next", ordering_key="k")
        store.finish(store.claim(ended.id, world.task(ended).fence, "dead@there"), None)
        whole = world.submit("assemble", "car")
        for child_id in world.run(whole).child_ids():
            store.finish(store.claim(child_id, 0, "dead@there"), "done")
        # All of it is due.
        past = world.engine.clock.now() - dt.timedelta(minutes=1)
        world.engine.database["tasks"].update_many(
            {"check_at": {"$gt": past}}, {"$set": {"check_at": past, "run_after": past}}
        )
        world.engine.database["tasks"].update_many(
            {"state": {"$ne": "queued"}}, {"$unset": {"run_after": ""}}
        )
        for key in world.engine.redis.scan_iter(f"{world.engine.settings.key_prefix}*"):
            world.engine.redis.delete(key)
        return {"do": "rescue"}

    def after():
        assert world.outcomes() == ["completed"] * 9
        wanted = ["car", "lost", "next", "plain 0", "plain 1", "retried"]
        assert sorted(set(world.effects())) == wanted

    at_every_write(world, case, after)
