"""Heartbeats in, load out, in Redis' time."""

import dataclasses
import json

import pytest

from orchestrator.errors import BrokerUnavailable
from orchestrator.registry import Heartbeat, Registry, open_redis
from orchestrator.tasks import Priority


def beat(worker: str = "w1", **more) -> Heartbeat:
    return Heartbeat(
        **{"worker": worker, "node": f"quote@{worker}", "agents": {"quote_agent": 5}} | more
    )


def test_a_worker_is_idle_busy_or_in_trouble_as_it_says(engine):
    engine.registry.beat(beat("w1"))
    engine.registry.beat(beat("w2", running={"quote_agent": 2}))
    engine.registry.beat(beat("w3", trouble="its consumer has not moved"))
    load = engine.registry.load([])
    status = {worker.beat.worker: worker.status for worker in load.workers}
    assert status == {"w1": "idle", "w2": "busy", "w3": "error"}
    assert {worker.beat.worker for worker in load.live("quote_agent")} == {"w1", "w2"}
    assert load.live("analytics_agent") == []


def test_a_silent_worker_is_offline_and_gets_no_work(engine):
    engine.registry.beat(beat())
    age(engine, "w1", engine.settings.worker_offline_s + 1)
    load = engine.registry.load([])
    assert [worker.status for worker in load.workers] == ["offline"]
    assert load.live("quote_agent") == []


def test_a_worker_silent_for_an_hour_is_forgotten(engine):
    engine.registry.beat(beat("old"))
    age(engine, "old", 3700)
    engine.registry.beat(beat("new"))
    assert [worker.beat.worker for worker in engine.registry.load([]).workers] == ["new"]


def test_a_worker_that_leaves_is_gone_at_once(engine):
    engine.registry.beat(beat())
    engine.registry.leave("w1")
    assert engine.registry.load([]).workers == ()


def test_queue_lengths_are_told_by_priority(engine):
    engine.redis.lpush("q", "critical one")
    engine.redis.lpush("q:6", "normal", "another")
    load = engine.registry.load(["q"])
    assert load.queues["q"] == {
        Priority.CRITICAL: 1, Priority.HIGH: 0, Priority.NORMAL: 2, Priority.LOW: 0,
    }  # fmt: skip
    engine.redis.delete("q", "q:6")


def test_an_empty_redis_has_no_epoch(engine):
    assert engine.registry.load([]).epoch is None
    engine.registry.set_epoch(7)
    assert engine.registry.load([]).epoch == 7


def test_a_heartbeat_of_a_newer_release_is_read_for_what_is_known(engine):
    told = dataclasses.asdict(beat()) | {"a field of the future": 1}
    engine.registry.beat(beat())
    engine.redis.hset(f"{engine.settings.key_prefix}:workers", "w1", json.dumps(told))
    assert engine.registry.load([]).workers[0].beat == beat()


def test_a_redis_that_is_away_is_said(settings):
    gone = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    registry = Registry(open_redis(gone), gone)
    with pytest.raises(BrokerUnavailable):
        registry.load([])
    with pytest.raises(BrokerUnavailable):
        registry.beat(beat())


def age(engine, worker: str, by_s: float) -> None:
    engine.redis.zincrby(f"{engine.settings.key_prefix}:beats", -by_s, worker)
