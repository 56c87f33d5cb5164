"""The rescuer's passes, with time advanced in place of waited for."""

import datetime as dt
from itertools import pairwise

import pytest
from pydantic import BaseModel

from orchestrator.declarations import Agent
from orchestrator.registry import Heartbeat
from orchestrator.rescue import Counts
from orchestrator.tasks import Priority, Request, State


class Payload(BaseModel):
    text: str = ""


agent = Agent(role="probe", name="Probe", capabilities=["probing"], slots=2)


@agent.handles("probe")
def probe(context, payload: Payload):
    return None


@pytest.fixture
def engine(engine):
    engine.init([agent])
    return engine


@pytest.fixture
def rescuer(engine):
    rescuer = engine.rescuer("me", eager=True)
    rescuer.tick()
    return rescuer


def submit(engine, **more):
    return engine.coordinator.submit(Request(type="probe", payload={}, **more))[0]


def depth(engine) -> int:
    return engine.service.queues()["queue_size"]


def drop_messages(engine) -> None:
    for key in engine.redis.scan_iter(f"{engine.settings.queue('probe')}*"):
        engine.redis.delete(key)


def claim(engine, task, worker="w"):
    task = engine.store.get(task.id)
    return engine.store.claim(task.id, task.fence, worker)


def test_nothing_due_is_nothing_done(engine, rescuer):
    assert not rescuer.run_once().any


def test_a_message_that_is_gone_is_published_again_when_its_time_comes(engine, rescuer, advance):
    task = submit(engine)
    drop_messages(engine)
    assert rescuer.run_once().published == 0
    advance(engine.settings.republish_after_s + 1)
    assert rescuer.run_once().published == 1
    assert depth(engine) == 1
    assert engine.store.get(task.id).fence == task.fence


def test_a_lost_message_is_missed_though_other_priorities_are_not_empty(engine, rescuer, advance):
    for _ in range(3):
        submit(engine)
    lost = submit(engine, priority=Priority.CRITICAL)
    engine.redis.delete(engine.settings.queue("probe"))
    advance(engine.settings.republish_after_s + 1)
    assert rescuer.run_once().published == 1
    assert depth(engine) == 4
    assert engine.store.get(lost.id).looks == 1


def test_a_hand_over_that_is_repeated_runs_no_child_again(engine, rescuer):
    parent, (first, second) = waiting_parent(engine, "probe", "probe")
    engine.store.finish(claim(engine, first), "done")
    claim(engine, second)
    drop_messages(engine)
    engine.coordinator.hand_over(parent)
    assert depth(engine) == 0
    assert engine.store.get(first.id).state is State.COMPLETED


def test_a_child_that_nobody_does_any_more_is_a_failed_one(engine, rescuer, advance):
    parent, (known, _) = waiting_parent(engine, "probe", "gone")
    engine.store.finish(claim(engine, known), "done")
    advance(engine.settings.republish_after_s + 1)
    rescuer.run_once()
    assert engine.store.get(parent.id).state is State.QUEUED
    results = engine.coordinator.children(engine.store.get(parent.id))
    assert [child.completed for child in results] == [True, False]
    assert results[1].error["code"] == "no_capable_agent"


def test_a_parent_that_was_cancelled_while_it_handed_over_takes_its_children_along(
    engine, rescuer, advance
):
    task = submit(engine)
    held = claim(engine, task)
    engine.coordinator.cancel(task.id)
    waiting = engine.store.wait(held, [Request(type="probe", payload={})], {})
    engine.coordinator.hand_over(waiting)
    assert engine.store.get(task.id).state is State.CANCELLED
    assert engine.store.get(waiting.child_ids()[0]).state is State.CANCELLED


def waiting_parent(engine, *types):
    requests = [Request(type=name, payload={}) for name in types]
    parent = engine.store.wait(claim(engine, submit(engine)), requests, {})
    drop_messages(engine)
    engine.coordinator.hand_over(parent)
    return parent, [engine.store.get(child_id) for child_id in parent.child_ids()]


def test_one_unreadable_task_does_not_keep_the_rescuer_from_the_others(engine, rescuer, advance):
    broken, lost = submit(engine), submit(engine)
    claim(engine, lost, "dead")
    engine.database["tasks"].update_one({"_id": broken.id}, {"$set": {"priority": "odd"}})
    advance(engine.settings.lease_s + 1)
    assert rescuer.run_once().taken_back == 1


def test_a_retry_does_not_wait_behind_a_backlog(engine, rescuer, advance):
    for _ in range(50):
        submit(engine)
    task = submit(engine)
    engine.store.retry(claim(engine, task), {"code": "x"}, 5.0)
    advance(6)
    engine.rescuer("me", eager=True)._retries(counts := Counts())
    assert counts.published == 1
    engine.rescuer("me", eager=True)._retries(counts)
    assert counts.published == 1


def test_a_backlog_does_not_grow_itself(engine, rescuer, advance):
    for _ in range(30):
        submit(engine)
    for _ in range(10):
        advance(engine.settings.republish_max_s)
        assert rescuer.run_once().published == 0
    assert depth(engine) == 30


def test_a_message_that_the_queue_has_moved_past_is_published_again(engine, rescuer, advance):
    lost, *others = [submit(engine) for _ in range(5)]
    engine.redis.rpop(f"{engine.settings.queue('probe')}:6")
    advance(10)
    late = engine.clock.now().timestamp()
    lane = f"{engine.settings.queue('probe')}:6"
    engine.registry.beat(
        Heartbeat(worker="w", node="n", agents={"probe_agent": 1}, passed={lane: late - 20})
    )
    assert rescuer.run_once().published == 0
    advance(600)
    engine.registry.beat(
        Heartbeat(worker="w", node="n", agents={"probe_agent": 1}, passed={lane: late})
    )
    assert rescuer.run_once().published == 5
    assert len(others) == 4
    assert engine.store.get(lost.id).state is State.QUEUED


def test_looks_at_a_queued_task_come_with_growing_pauses(engine, rescuer, advance):
    task = submit(engine)
    looks = []
    for second in range(100):
        advance(1)
        before = engine.store.get(task.id).looks
        rescuer.run_once()
        if engine.store.get(task.id).looks > before:
            looks.append(second)
    pauses = [later - earlier for earlier, later in pairwise(looks)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 2 * pauses[0]


def test_a_retry_is_published_when_its_pause_is_over_and_not_before(engine, rescuer, advance):
    task = submit(engine)
    drop_messages(engine)
    engine.store.retry(claim(engine, task), {"code": "x"}, 30.0)
    engine.registry.set_epoch(99)
    rescuer.run_once()
    advance(29)
    rescuer.run_once()
    assert depth(engine) == 0
    advance(2)
    assert rescuer.run_once().published == 1


def test_a_lease_that_ended_is_taken_back_and_one_that_was_renewed_is_not(engine, rescuer, advance):
    lost, kept = submit(engine), submit(engine)
    claim(engine, lost, "dead")
    claim(engine, kept, "alive")
    advance(engine.settings.lease_s + 1)
    engine.store.renew([(kept.id, engine.store.get(kept.id).fence)])
    assert rescuer.run_once().taken_back == 1
    assert engine.store.get(lost.id).state is State.QUEUED
    assert engine.store.get(kept.id).state is State.RUNNING


def test_after_a_jump_of_the_clock_a_full_lease_passes_before_anything_is_taken_back(
    engine, rescuer, advance
):
    claim(engine, submit(engine), "alive")
    advance(engine.settings.lease_s + 1)
    engine.clock.observe(engine.clock.now() + dt.timedelta(hours=1))
    assert rescuer.tick().taken_back == 0
    advance(engine.settings.lease_s - 1)
    assert rescuer.tick().taken_back == 0
    advance(2)
    assert rescuer.tick().taken_back == 1


def test_the_lock_keeps_a_second_rescuer_out_until_it_is_stale(engine, rescuer, advance):
    other = engine.rescuer("other", eager=False)
    assert rescuer.tick() is not None
    assert other.tick() is None
    advance(engine.settings.lease_s)
    assert other.tick() is not None
    assert rescuer.tick() is None


def test_a_lock_that_was_given_up_is_free_at_once(engine, rescuer):
    rescuer.release()
    assert engine.rescuer("other", eager=False).tick() is not None


def test_after_redis_lost_its_memory_everything_queued_is_published_under_a_new_epoch(
    engine, rescuer
):
    tasks = [submit(engine) for _ in range(25)]
    before = engine.router.load().epoch
    drop_messages(engine)
    engine.redis.delete(f"{engine.settings.key_prefix}:epoch")
    assert rescuer.run_once().republished == 25
    assert engine.router.load().epoch == before + 1
    assert depth(engine) == 25
    assert rescuer.run_once().republished == 0
    assert {engine.store.get(task.id).epoch for task in tasks} == {before + 1}


def test_what_was_left_of_a_bulk_is_published_by_the_next_pass(engine, rescuer):
    for _ in range(5):
        submit(engine)
    drop_messages(engine)
    engine.redis.delete(f"{engine.settings.key_prefix}:epoch")
    engine.database["epochs"].update_one({"_id": "redis"}, {"$inc": {"n": 1}})
    engine.registry.set_epoch(engine.database["epochs"].find_one()["n"])
    assert engine.rescuer("next", eager=True).run_once().republished == 5
