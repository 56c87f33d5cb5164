"""The rescuer's passes, with time advanced in place of waited for."""

import datetime as dt
from itertools import pairwise

import pytest
from pydantic import BaseModel

from deploy.servers import free_port
from orchestrator import rescue
from orchestrator.broker import Publisher
from orchestrator.declarations import Agent
from orchestrator.rescue import Counts
from orchestrator.tasks import Priority, Request, State, Task


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


def without_redis(settings):
    return settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})


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
    engine.rescuer("me", eager=True)._queued(counts := Counts())
    assert counts.published == 1
    engine.rescuer("me", eager=True)._queued(counts)
    assert counts.published == 1
    stored = engine.store.get(task.id)
    assert (stored.run_after, stored.check_at, stored.looks) == (None, None, 1)


def test_a_retry_that_is_published_keeps_its_deadline(engine, rescuer, advance):
    task = submit(engine, deadline_s=20)
    engine.store.retry(claim(engine, task), {"code": "x"}, 5.0)
    advance(6)
    assert rescuer.run_once().published == 1
    assert engine.store.get(task.id).check_at == task.deadline
    advance(15)
    assert rescuer.run_once().expired == 1


def test_a_retry_waits_for_redis(engine, rescuer, advance, monkeypatch):
    task = submit(engine)
    engine.store.retry(claim(engine, task), {"code": "x"}, 5.0)
    advance(6)
    monkeypatch.setattr(rescuer, "_publisher", Publisher(without_redis(engine.settings)))
    assert rescuer.run_once().published == 0
    monkeypatch.setattr(rescuer, "_publisher", engine.publisher)
    assert rescuer.run_once().published == 1


def test_a_backlog_does_not_grow_itself(engine, rescuer, advance):
    for _ in range(30):
        submit(engine)
    for _ in range(10):
        advance(engine.settings.republish_max_s)
        assert rescuer.run_once().published == 0
    assert depth(engine) == 30


def test_a_backlog_of_thousands_costs_no_write_and_no_task_anything(engine, rescuer, advance):
    """Of 100,000 it is the same: what is looked at is the oldest message, by an index."""
    task = engine.database["tasks"].find_one({"_id": submit(engine).id})
    copies = [task | {"_id": f"{n:05}", "idempotency": f"{n:05}"} for n in range(5000)]
    engine.database["tasks"].insert_many(copies)
    engine.publisher.publish_bulk([Task.from_document(copy) for copy in copies])
    before = list(engine.database["tasks"].find().sort("_id", 1))
    for _ in range(20):
        advance(engine.settings.republish_max_s)
        assert not rescuer.run_once().any
    assert depth(engine) == 5001
    assert list(engine.database["tasks"].find().sort("_id", 1)) == before


def test_a_message_that_the_queue_has_moved_past_is_published_again(engine, rescuer, advance):
    lost = submit(engine)
    engine.redis.rpop(f"{engine.settings.queue('probe')}:6")
    advance(10)
    others = [submit(engine) for _ in range(4)]
    assert rescuer.run_once().published == 1
    assert engine.store.get(lost.id).looks == 1
    assert [engine.store.get(other.id).looks for other in others] == [0] * 4
    assert depth(engine) == 5


def test_what_a_worker_has_just_taken_is_not_missed(engine, rescuer, advance):
    submit(engine)
    advance(engine.settings.republish_after_s - 1)
    engine.redis.rpop(f"{engine.settings.queue('probe')}:6")
    assert rescuer.run_once().published == 0


def test_a_tail_of_messages_that_redis_lost_is_published_in_its_turn(engine, rescuer, advance):
    """Killed between two syncs of its log: the epoch is there, the newest messages are not."""
    kept = [submit(engine) for _ in range(3)]
    advance(2)
    tail = [submit(engine) for _ in range(20)]
    for _ in tail:
        engine.redis.lpop(f"{engine.settings.queue('probe')}:6")
    advance(10)
    assert rescuer.run_once().published == 0, "those before them are still waiting"
    for task in kept:
        engine.redis.rpop(f"{engine.settings.queue('probe')}:6")
        claim(engine, task)
    advance(engine.settings.lease_s - 2)
    counts = rescuer.run_once()
    assert (counts.published, counts.republished) == (20, 0)
    assert depth(engine) == 20


def test_redis_may_lose_its_memory_while_what_it_lost_is_published(
    engine, rescuer, advance, monkeypatch
):
    for _ in range(8):
        submit(engine)
    forget(engine)
    monkeypatch.setattr(rescue, "MOST", 5)
    assert rescuer.run_once().republished == 5
    forget(engine)
    advance(1)
    assert [rescuer.run_once().republished for _ in range(3)] == [5, 3, 0]
    assert depth(engine) == 8


def forget(engine) -> None:
    """As FLUSHALL does, in this desk's part of Redis."""
    drop_messages(engine)
    engine.redis.delete(f"{engine.settings.key_prefix}:epoch")


def test_what_waits_before_the_first_pass_of_a_new_desk_is_not_published_twice(engine):
    for _ in range(3):
        submit(engine)
    counts = engine.rescuer("first", eager=True).tick()
    assert (counts.published, counts.republished, depth(engine)) == (0, 0, 3)
    assert engine.router.load(fresh=True).epoch == 1


def test_a_message_that_is_lost_again_and_again_is_published_with_growing_pauses(
    engine, rescuer, advance
):
    submit(engine)
    published = []
    for second in range(100):
        advance(1)
        if rescuer.run_once().published:
            published.append(second)
        drop_messages(engine)
    pauses = [later - earlier for earlier, later in pairwise(published)]
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


def test_one_pass_over_a_great_loss_is_bounded_and_the_next_goes_on(engine, rescuer, monkeypatch):
    for _ in range(5):
        submit(engine)
    forget(engine)
    monkeypatch.setattr(rescue, "MOST", 2)
    monkeypatch.setattr(rescue, "BULK", 1)
    passes = [rescuer.run_once().republished, rescuer.run_once().republished]
    rescuer.release()
    assert [*passes, engine.rescuer("next", eager=True).tick().republished] == [2, 2, 1]
    assert depth(engine) == 5


def test_nothing_stays_in_the_future_when_the_clock_went_back(
    engine, rescuer, advance, monkeypatch
):
    lost = submit(engine)
    claim(engine, lost, "dead")
    kept = submit(engine)
    claim(engine, kept, "alive")
    paused = submit(engine)
    engine.store.retry(claim(engine, paused), {"code": "x"}, 5.0)
    drop_messages(engine)
    unpublished = submit(engine)
    drop_messages(engine)
    parent, children = waiting_parent(engine, "probe")
    engine.store.finish(claim(engine, children[0]), "done")
    engine.clock.observe(engine.clock.now() - dt.timedelta(hours=5))
    monkeypatch.setattr(engine.store, "read_clock", lambda: None)
    for _ in range(int(3 * engine.settings.lease_s)):
        advance(1)
        engine.store.renew([(kept.id, engine.store.get(kept.id).fence)])
        rescuer.tick()
    assert engine.store.get(lost.id).state is State.QUEUED
    assert engine.store.get(lost.id).crashes == 1
    assert engine.store.get(kept.id).state is State.RUNNING
    assert engine.store.get(parent.id).state is State.QUEUED
    assert engine.store.get(paused.id).run_after is None
    now = engine.clock.now()
    for task in (lost, paused, unpublished, parent):
        assert engine.store.get(task.id).published_at <= now
    assert depth(engine) >= 4


def test_a_pause_that_was_asked_for_is_kept_however_long(engine, rescuer, advance):
    task = submit(engine)
    engine.store.retry(claim(engine, task), {"code": "later"}, 7200.0, failed=False)
    for _ in range(3):
        advance(engine.settings.lease_s + 1)
        rescuer.tick()
    assert engine.store.get(task.id).run_after is not None


def test_a_pause_begins_anew_when_the_clock_went_back(engine, rescuer, advance, monkeypatch):
    task = submit(engine)
    engine.store.retry(claim(engine, task), {"code": "later"}, 7200.0, failed=False)
    engine.clock.observe(engine.clock.now() - dt.timedelta(hours=5))
    monkeypatch.setattr(engine.store, "read_clock", lambda: None)
    advance(engine.settings.lease_s + 1)
    rescuer.tick()
    pause = engine.store.get(task.id).run_after - engine.clock.now()
    assert dt.timedelta(seconds=7190) < pause <= dt.timedelta(seconds=7200)
    advance(7201)
    assert rescuer.tick().published == 1


@pytest.mark.parametrize("erased", [False, True], ids=["final", "erased"])
def test_a_blocked_task_whose_predecessor_is_gone_is_promoted(engine, rescuer, advance, erased):
    first, second = (submit(engine, ordering_key="k") for _ in range(2))
    if erased:
        engine.database["tasks"].delete_one({"_id": first.id})
    else:
        engine.store.finish(claim(engine, first), None)
    assert engine.store.get(second.id).state is State.BLOCKED
    advance(engine.settings.republish_after_s + 1)
    assert rescuer.run_once().promoted == 1
    assert engine.store.get(second.id).state is State.QUEUED


def test_a_deadline_of_a_queued_task_is_kept_though_its_message_waits(engine, rescuer, advance):
    late = submit(engine, deadline_s=20)
    paused = submit(engine, deadline_s=20)
    engine.store.retry(claim(engine, paused), {"code": "x"}, 60.0)
    advance(19)
    assert rescuer.run_once().expired == 0
    advance(2)
    assert rescuer.run_once().expired == 2
    assert {engine.store.get(task.id).state for task in (late, paused)} == {State.CANCELLED}


def test_the_key_of_a_cancelled_task_is_kept_until_its_lease_has_ended(engine, rescuer, advance):
    first, second = (submit(engine, ordering_key="k") for _ in range(2))
    claim(engine, first, "dead")
    engine.coordinator.cancel(first.id)
    rescuer.run_once()
    assert engine.store.get(second.id).state is State.BLOCKED
    advance(engine.settings.lease_s + 1)
    rescuer.run_once()
    assert engine.store.get(first.id).state is State.CANCELLED
    assert engine.store.get(second.id).state is State.QUEUED


def test_a_poison_task_gives_its_key_to_the_next(engine, rescuer, advance):
    first, second = (submit(engine, ordering_key="k") for _ in range(2))
    for crash in range(engine.settings.max_crashes + 1):
        assert engine.store.get(second.id).state is State.BLOCKED
        assert engine.store.get(first.id).suspect == (crash >= 2)
        claim(engine, first, f"victim {crash}")
        advance(engine.settings.lease_s + 1)
        rescuer.run_once()
    assert engine.store.get(first.id).error["code"] == "worker_lost"
    assert engine.store.get(second.id).state is State.QUEUED


def test_a_retry_keeps_its_key(engine, rescuer, advance):
    first, second = (submit(engine, ordering_key="k") for _ in range(2))
    engine.store.retry(claim(engine, first), {"code": "x"}, 30.0)
    advance(20)
    rescuer.run_once()
    assert engine.store.get(second.id).state is State.BLOCKED
