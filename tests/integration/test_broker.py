"""Publishing: what it costs Redis, and what becomes of a batch that breaks in the middle."""

import contextlib
import json
import socket
import threading
from dataclasses import replace

import pytest
from pydantic import BaseModel

from orchestrator.broker import Publisher
from orchestrator.declarations import Agent
from orchestrator.errors import BrokerUnavailable
from orchestrator.registry import lane
from orchestrator.tasks import Priority, Request

agent = Agent(role="probe", name="Probe", capabilities=["probing"], slots=2)


class Payload(BaseModel):
    text: str = ""


@agent.handles("probe")
def probe(context, payload: Payload):
    return None


@pytest.fixture
def engine(engine):
    engine.init([agent])
    return engine


def submit(engine, count, **more):
    request = Request(type="probe", payload={}, **more)
    return [engine.coordinator.submit(request)[0] for _ in range(count)]


def lane_of(engine, priority=Priority.NORMAL) -> str:
    return lane(engine.settings.queue("probe"), priority)


def ids_in(engine, priority=Priority.NORMAL) -> list[str]:
    """Ids of tasks in a lane, the first to be taken first."""
    messages = engine.redis.lrange(lane_of(engine, priority), 0, -1)
    return [json.loads(message)["headers"]["id"].split(":")[0] for message in reversed(messages)]


def copies(engine, count):
    task = submit(engine, 1)[0]
    engine.redis.delete(lane_of(engine))
    return [replace(task, id=f"{n:05}") for n in range(count)]


def stats(engine) -> tuple[int, int]:
    """LPUSHes that Redis has run, and reads from sockets that it took to hear of everything."""
    pushed = engine.redis.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"]
    return pushed, engine.redis.info("stats")["total_reads_processed"]


@pytest.mark.parametrize("way", ["publish", "publish_bulk"])
def test_a_thousand_messages_are_a_thousand_commands_in_few_round_trips(engine, way):
    tasks = copies(engine, 1000)
    pushed, reads = stats(engine)
    getattr(engine.publisher, way)(tasks)
    pushed_after, reads_after = stats(engine)
    assert pushed_after - pushed == 1000
    # What is left are the pieces in which a megabyte comes through a socket.
    assert reads_after - reads < 200
    assert ids_in(engine) == [task.id for task in tasks]


class CutWire:
    """Forwards connections to a server until so many bytes have gone there; then all are cut."""

    def __init__(self, port: int, after_bytes: int) -> None:
        self._target = ("127.0.0.1", port)
        self.left = after_bytes
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._target)
                self._sockets += here, there
                for pump, ends in ((self._onward, (here, there)), (self._back, (there, here))):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    def _onward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                with self._lock:
                    sink.sendall(data[: self.left])
                    self.left -= min(self.left, len(data))
                    if not self.left:
                        self.cut()

    @staticmethod
    def _back(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                sink.sendall(data)

    def cut(self) -> None:
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_a_batch_that_was_cut_in_the_middle_is_missed_and_published_again(
    engine, redis_server, eventually, advance
):
    rescuer = engine.rescuer("me", eager=True)
    rescuer.tick()
    tasks = submit(engine, 300)
    engine.redis.delete(lane_of(engine))
    wire = CutWire(int(redis_server.url.rsplit(":", 1)[1]), after_bytes=100_000)
    settings = engine.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{wire.port}/0"})
    rescuer._publisher = Publisher(settings)
    advance(settings.republish_after_s + 1)
    assert rescuer.run_once().published == 0
    assert not wire.left, "it was cut while it published"
    # Redis has what arrived in whole, and nothing of the rest.
    some = eventually(lambda: ids_in(engine))
    assert 0 < len(some) < 300
    assert some == [task.id for task in tasks][: len(some)]
    assert engine.store.get(tasks[0].id).looks == 0, "none counts as published"

    # The lane now begins with messages of an earlier time: it is moved past when they are taken.
    for _ in some:
        engine.redis.rpop(lane_of(engine))
    advance(settings.republish_after_s + 1)
    rescuer._publisher = engine.publisher
    assert rescuer.run_once().published == 300
    assert ids_in(engine) == [task.id for task in tasks]


def test_a_command_that_redis_refuses_fails_the_batch_and_keeps_the_others(engine):
    normal, critical = submit(engine, 3), submit(engine, 3, priority=Priority.CRITICAL)
    engine.redis.delete(lane_of(engine))
    engine.redis.set(lane_of(engine, Priority.CRITICAL), "no list")
    mixed = [task for pair in zip(normal, critical, strict=True) for task in pair]
    with pytest.raises(BrokerUnavailable):
        engine.publisher.publish_bulk(mixed)
    assert ids_in(engine) == [task.id for task in normal]
    engine.redis.delete(lane_of(engine, Priority.CRITICAL))
    engine.publisher.publish_bulk(critical)
    assert ids_in(engine, Priority.CRITICAL) == [task.id for task in critical]


def test_after_a_failure_the_next_ones_are_left_to_the_rescuer_who_is_not_held_up(engine):
    tasks = submit(engine, 2)
    engine.redis.delete(lane_of(engine))
    engine.redis.set(lane_of(engine), "no list")
    with pytest.raises(BrokerUnavailable):
        engine.publisher.publish(tasks)
    engine.redis.delete(lane_of(engine))
    with pytest.raises(BrokerUnavailable):
        engine.publisher.publish(tasks)
    assert ids_in(engine) == []
    engine.publisher.publish_bulk(tasks)
    assert ids_in(engine) == [task.id for task in tasks]


@pytest.mark.parametrize(
    ("asked", "waits_as"),
    [
        (Priority.LOW, Priority.NORMAL),
        (Priority.NORMAL, Priority.HIGH),
        (Priority.HIGH, Priority.HIGH),
        (Priority.CRITICAL, Priority.CRITICAL),
    ],
)
def test_what_has_begun_is_finished_before_more_begins(engine, advance, asked, waits_as):
    rescuer = engine.rescuer("me", eager=True)
    rescuer.tick()
    parent = submit(engine, 1, priority=asked)[0]
    later = submit(engine, 3, priority=asked)
    held = engine.store.claim(parent.id, parent.fence, "w")
    engine.redis.rpop(lane_of(engine, asked))
    request = Request(type="probe", payload={}, priority=asked)
    waiting = engine.store.wait(held, [request, request], {})
    engine.coordinator.hand_over(waiting)
    if waits_as is not asked:
        assert ids_in(engine, asked) == [task.id for task in later]
    assert ids_in(engine, waits_as)[-2:] == waiting.child_ids()

    for child_id in waiting.child_ids():
        child = engine.store.get(child_id)
        assert child.priority is asked
        engine.store.finish(engine.store.claim(child_id, child.fence, "w"), None)
        engine.redis.lpop(lane_of(engine, waits_as))
    assert engine.coordinator.resume(engine.store.get(parent.id))
    assert ids_in(engine, waits_as)[-1] == parent.id
    # And so it does where Redis has forgotten it, and when it is tried once more.
    engine.redis.delete(*(lane_of(engine, each) for each in Priority))
    engine.redis.delete(f"{engine.settings.key_prefix}:epoch")
    assert rescuer.run_once().republished == 4
    assert ids_in(engine, waits_as)[-1] == parent.id
    resumed = engine.store.get(parent.id)
    engine.store.retry(engine.store.claim(parent.id, resumed.fence, "w"), {"code": "x"}, 5.0)
    engine.redis.delete(lane_of(engine, waits_as))
    advance(6)
    assert rescuer.run_once().published >= 1
    assert parent.id in ids_in(engine, waits_as)
