"""Waiting for tasks to end."""

import time
from concurrent.futures import ThreadPoolExecutor

from orchestrator.engine import Engine
from orchestrator.replies import SWEEP_S
from orchestrator.tasks import Request, State, Task


def accept(engine: Engine) -> Task:
    request = Request(type="t", payload={}, caller="test")
    return engine.store.accept(request, agent="a", queue="q", decision={}, epoch=0)[0]


def finish(engine: Engine, task: Task) -> None:
    engine.store.finish(engine.store.claim(task.id, task.fence, "w"), {"done": True})


def waiting(engine: Engine, pool: ThreadPoolExecutor, task: Task, eventually):
    future = pool.submit(engine.replies.wait, task.id, 20)
    eventually(lambda: task.id in engine.replies._waiting, 5, "it is waited for")
    return future


def test_who_waits_is_woken_by_the_announcement(engine, eventually):
    task = accept(engine)
    with ThreadPoolExecutor(1) as pool:
        future = waiting(engine, pool, task, eventually)
        finish(engine, task)
        engine.replies.announce(task)
        assert future.result(5).result == {"done": True}


def test_a_lost_announcement_is_made_good_from_the_store(engine, eventually):
    task = accept(engine)
    with ThreadPoolExecutor(1) as pool:
        future = waiting(engine, pool, task, eventually)
        finish(engine, task)
        finished_at = time.monotonic()
        assert future.result(10).state is State.COMPLETED
    # One sweep, and as much again for a machine that is busy.
    assert time.monotonic() - finished_at < 3 * SWEEP_S


def test_an_announcement_of_another_process_is_heard(engine, settings, eventually):
    task, other = accept(engine), Engine(settings)
    with ThreadPoolExecutor(1) as pool:
        future = waiting(engine, pool, task, eventually)
        finish(other, task)
        eventually(
            lambda: engine.redis.pubsub_numsub(f"{settings.key_prefix}:finished")[0][1], 5, "heard"
        )
        other.replies.announce(task)
        assert future.result(5).state is State.COMPLETED
    other.close()


def test_a_wait_that_is_over_gives_the_task_as_it_stands(engine):
    task = accept(engine)
    assert engine.replies.wait(task.id, 0).state is State.QUEUED
    assert engine.replies.wait(task.id, 0.05).state is State.QUEUED
    assert engine.replies._waiting == {}


def test_a_task_that_has_ended_before_is_there_at_once(engine):
    task = accept(engine)
    finish(engine, task)
    assert engine.replies.wait(task.id, 20).state is State.COMPLETED
