"""What a dead process left undone is mended within 10 s at the default settings."""

import os
import signal
import time

import probe.answering.agent as answering
import probe.relay.agent as relay
import pytest

from orchestrator.engine import Engine
from orchestrator.tasks import Request, State

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

MENDED_WITHIN_S = 10.0


def test_a_task_whose_publishing_failed_runs(desk):
    desk.worker("answering")
    cut_off = Engine(desk.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    task, _ = cut_off.coordinator.submit(Request(type="note", payload={"note": "n"}))
    cut_off.close()
    assert desk.finished(task, MENDED_WITHIN_S).result == {"note": "n"}


def test_a_message_that_redis_lost_is_published_again(desk):
    held = desk.gate()
    desk.worker("holding", "-c", "1")
    first = desk.submit("hold", held)
    second = desk.submit("hold", held | {"note": "second"})
    desk.engine.redis.delete(desk.settings.queue("holding") + ":6")
    desk.open_gate(held)
    desk.finished(first)
    assert desk.finished(second, MENDED_WITHIN_S + 5).state is State.COMPLETED
    assert desk.engine.store.get(second.id).attempts == 1


def test_a_task_runs_elsewhere_when_its_worker_is_killed_in_the_middle(desk, eventually):
    payload = desk.gate()
    victim = desk.worker("holding")
    task = desk.submit("hold", payload)
    eventually(lambda: desk.journal(payload) == ["began "], 10, "the handler has begun")
    desk.worker("holding")
    os.kill(victim.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    eventually(lambda: len(desk.journal(payload)) == 2, MENDED_WITHIN_S, "it began again")
    assert time.monotonic() - killed_at < MENDED_WITHIN_S
    desk.open_gate(payload)
    ended = desk.finished(task)
    assert (ended.state, ended.crashes, ended.failures) == (State.COMPLETED, 1, 0)
    assert ended.result["attempts"] == 2
    assert [e["event"] for e in ended.timeline] == [
        "accepted", "claimed", "taken_back", "claimed", "completed",
    ]  # fmt: skip


def test_a_killed_child_of_a_prefork_pool_loses_no_task(desk, eventually):
    payload = desk.gate()
    desk.worker("holding", "-P", "prefork", "-c", "2")
    task = desk.submit("hold", payload)
    eventually(lambda: desk.journal(payload) == ["began "], 10, "the handler has begun")
    child = int(desk.engine.store.get(task.id).worker.split("/")[1])
    os.kill(child, signal.SIGKILL)
    eventually(lambda: len(desk.journal(payload)) == 2, MENDED_WITHIN_S, "it began again")
    desk.open_gate(payload)
    assert desk.finished(task).crashes == 1


def test_a_worker_that_was_stopped_past_its_lease_does_not_overwrite(desk, eventually):
    payload = desk.gate()
    zombie = desk.worker("holding")
    task = desk.submit("hold", payload)
    eventually(lambda: desk.journal(payload) == ["began "], 10, "the handler has begun")
    other = desk.worker("holding")
    os.kill(zombie.pid, signal.SIGSTOP)
    eventually(lambda: len(desk.journal(payload)) == 2, 15, "it began again")
    holder = desk.engine.store.get(task.id).worker
    os.kill(other.pid, signal.SIGSTOP)
    desk.open_gate(payload)
    os.kill(zombie.pid, signal.SIGCONT)
    eventually(lambda: "task.stale" in desk.log("holding"), 10, "the zombie's result was dropped")
    stored = desk.engine.store.get(task.id)
    assert (stored.state, stored.worker) == (State.RUNNING, holder)
    os.kill(other.pid, signal.SIGCONT)
    assert desk.finished(task).state is State.COMPLETED


def test_a_parent_whose_children_are_final_goes_on(desk):
    """The child's worker died between its finish and the resume of the parent."""
    parent, child = parent_and_child(desk)
    claim = desk.engine.store.claim(child.id, child.fence, "dead")
    desk.engine.store.finish(claim, {"note": "done"})
    assert desk.state(parent) is State.WAITING
    desk.worker("relay")
    ended = desk.finished(parent, MENDED_WITHIN_S)
    assert ended.result["children"][0]["result"] == {"note": "done"}


def test_children_that_were_never_inserted_are(desk):
    """The parent's worker died between its hand-over and the insert of the children."""
    parent, child = parent_and_child(desk)
    desk.engine.database["tasks"].delete_one({"_id": child.id})
    desk.worker("answering")
    desk.worker("relay")
    assert desk.finished(parent, MENDED_WITHIN_S).result["children"][0]["result"] == {"note": "n"}


def parent_and_child(desk):
    """A waiting parent and its child, as workers that died left them; nothing runs yet."""
    desk.engine.init([relay.agent, answering.agent])
    parent = desk.submit("relay", {"notes": ["n"]})
    claim = desk.engine.store.claim(parent.id, parent.fence, "dead")
    child_request = Request(type="note", payload={"note": "n"})
    waiting = desk.engine.store.wait(claim, [child_request], {"asked": 1})
    desk.engine.coordinator.hand_over(waiting)
    return waiting, desk.engine.store.get(waiting.child_ids()[0])


def test_a_blocked_task_whose_predecessor_is_final_runs(desk):
    """The first one's worker died between its finish and the promotion of the next."""
    desk.engine.init([answering.agent])
    first, second = (
        desk.submit("note", {"note": str(n)}, ordering_key="session") for n in range(2)
    )
    head = desk.engine.store.get(first.id)
    desk.engine.store.finish(desk.engine.store.claim(head.id, head.fence, "dead"), None)
    assert desk.state(second) is State.BLOCKED
    desk.worker("answering")
    assert desk.finished(second, MENDED_WITHIN_S).result == {"note": "1"}


def test_everything_queued_is_published_again_when_redis_is_emptied(desk, eventually):
    held = desk.gate()
    desk.worker("holding", "-c", "1")
    first = desk.submit("hold", held)
    eventually(lambda: desk.journal(held), 10, "the handler has begun")
    queued = [desk.submit("hold", held | {"note": str(n)}) for n in range(20)]
    epoch = desk.engine.router.load().epoch
    desk.engine.redis.flushall()
    eventually(lambda: desk.engine.router.load().epoch == epoch + 1, 10, "the epoch was raised")
    eventually(
        lambda: sum(desk.engine.service.queues()["queues"][0]["by_priority"].values()) >= 19,
        10,
        "the backlog is back",
    )
    desk.open_gate(held)
    for task in [first, *queued]:
        assert desk.finished(task, 20).state is State.COMPLETED
    begun = [line for line in desk.journal(held) if line.startswith("began")]
    assert len(begun) == len(set(begun)) == 21


def test_a_queued_task_past_its_deadline_ends_and_the_next_of_its_key_runs(desk):
    desk.engine.init([answering.agent])
    late = desk.submit("note", {}, ordering_key="k", deadline_s=0.01)
    following = desk.submit("note", {"note": "next"}, ordering_key="k")
    desk.worker("answering")
    ended = desk.finished(late, MENDED_WITHIN_S)
    assert (ended.state, ended.error["code"]) == (State.CANCELLED, "deadline_exceeded")
    assert desk.finished(following, MENDED_WITHIN_S).result == {"note": "next"}
