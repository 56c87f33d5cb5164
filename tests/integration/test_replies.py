"""Waiting for tasks to end."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

from orchestrator.context import ordering_key
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


def test_an_announcement_shows_no_name_not_even_its_plain_hash(engine, settings):
    """A session's id may be a phone number: there are few enough to try them all."""
    key, other = ordering_key("59899123456"), Engine(settings)
    with engine.redis.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(f"{settings.key_prefix}:finished")
        assert heard.get_message(timeout=5) is None
        for process in (engine, other):
            process.replies.announce_news(key)
        told = [heard.get_message(timeout=5)["data"].strip() for _ in range(2)]
    # All processes of an installation say the same.
    assert told[0] == told[1]
    assert len(told[0]) == 16
    assert told[0] not in hashlib.sha256(key.encode()).hexdigest()
    other.close()


def test_who_watches_a_session_is_woken_by_another_process(engine, settings, eventually):
    session = engine.sessions.open("s", None, caller="c", channel="web", trusted=True)
    watch, other = engine.events.watch_session(session.id), Engine(settings)
    engine.events.session(watch, None)
    channel = f"{settings.key_prefix}:finished"
    eventually(lambda: engine.redis.pubsub_numsub(channel)[0][1], 5, "it listens")
    watch.wait(0)
    other.replies.announce_news(ordering_key(session.id))
    # Nothing has changed, so that no sweep would wake it.
    assert watch.wait(5)
    engine.events.unwatch(watch)
    assert not engine.events._marks
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
