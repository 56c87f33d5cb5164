"""Agents as plain Celery workers: what a task meets on its way."""

import json
import os
import signal
import subprocess
import sys

import pytest
from celery import Celery

from deploy.servers import free_port
from orchestrator.broker import configure
from orchestrator.tasks import State

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


def test_a_task_goes_through_its_own_queue_to_a_worker_and_back(desk):
    desk.worker("answering")
    task = desk.submit("note", {"note": "hello"})
    ended = desk.finished(task)
    assert (ended.result, ended.queue) == ({"note": "hello"}, desk.settings.queue("answering"))
    assert [e["event"] for e in ended.timeline] == ["accepted", "claimed", "completed"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_hand_over_comes_back_as_values_in_order(desk, pool):
    desk.worker("relay", "-P", pool)
    desk.worker("answering", "-P", pool)
    done = desk.finished(desk.submit("relay", {"notes": ["a", "b", "c"]}))
    assert [child["result"]["note"] for child in done.result["children"]] == ["a", "b", "c"]
    assert done.result["memory"] == {"asked": 3}


def test_a_child_that_fails_is_a_value_for_its_parent(desk):
    desk.worker("relay")
    ended = desk.finished(desk.submit("relay", {"notes": ["a"], "type": "refuse"}))
    assert ended.state is State.COMPLETED
    assert ended.result["children"][0]["state"] == "failed"
    assert ended.result["children"][0]["error"]["code"] == "refused_by_test"


def test_a_hand_over_of_what_could_not_be_accepted_fails_with_the_reason(desk):
    desk.worker("relay")
    nobody = desk.finished(desk.submit("relay", {"notes": ["a"], "type": "nobody"}))
    assert nobody.error["code"] == "no_capable_agent"
    desk.worker("holding")
    wrong = desk.finished(desk.submit("relay", {"notes": ["a"], "type": "hold"}))
    assert wrong.error["code"] == "invalid_payload"
    assert {e["pointer"] for e in wrong.error["facts"]["errors"]} == {"/journal", "/gate"}


def test_a_handler_that_raises_is_tried_again_with_pauses(desk):
    desk.worker("relay")
    ended = desk.finished(desk.submit("stumble", {}), 20)
    assert (ended.state, ended.result, ended.failures) == (State.COMPLETED, {"failures": 2}, 2)
    assert "a customer's words" not in desk.log("relay")


def test_what_cannot_be_done_fails_at_once_with_its_code(desk):
    desk.worker("relay")
    ended = desk.finished(desk.submit("refuse", {}))
    assert (ended.state, ended.attempts) == (State.FAILED, 1)
    assert ended.error["code"] == "refused_by_test"
    assert ended.error["facts"] == {"reason": "test"}


def test_a_result_that_cannot_be_stored_fails_and_says_so(desk):
    desk.worker("relay")
    ended = desk.finished(desk.submit("unfit", {}))
    assert (ended.state, ended.error["code"]) == (State.FAILED, "result_unfit")


def test_a_handler_that_ends_its_process_costs_no_slot(desk):
    desk.environment["MAX_FAILURES"] = "0"
    desk.worker("relay", "-c", "2")
    for _ in range(4):
        ended = desk.finished(desk.submit("quit", {}))
        assert (ended.state, ended.error["code"]) == (State.FAILED, "handler_error")
    assert desk.finished(desk.submit("relay", {})).state is State.COMPLETED


def test_an_error_that_cannot_be_stored_is_one_without_its_facts(desk):
    desk.worker("relay")
    ended = desk.finished(desk.submit("misfit", {}))
    assert (ended.error["code"], "facts" in ended.error) == ("misfit", False)


def test_tasks_of_one_key_run_one_at_a_time_in_order_while_others_go_on(desk, eventually):
    first, second = desk.gate(), desk.gate()
    desk.worker("holding")
    ordered = [desk.submit("hold", first | {"note": str(n)}, ordering_key="s") for n in range(5)]
    other = desk.submit("hold", second | {"note": "other"}, ordering_key="t")
    eventually(lambda: desk.journal(second), 10, "the other key does not wait")
    assert desk.journal(first) == ["began 0"]
    desk.open_gate(second)
    desk.finished(other)
    desk.open_gate(first)
    for task in ordered:
        desk.finished(task)
    assert desk.journal(first) == [f"{step} {n}" for n in range(5) for step in ("began", "ended")]


def test_a_running_task_that_is_cancelled_sees_it_and_ends_cancelled(desk, eventually):
    payload = desk.gate()
    desk.worker("holding")
    task = desk.submit("hold", payload)
    eventually(lambda: desk.journal(payload), 10, "the handler has begun")
    desk.engine.coordinator.cancel(task.id)
    ended = desk.finished(task)
    assert ended.state is State.CANCELLED


def test_a_saturated_agent_is_passed_over_and_the_decision_says_why(desk, eventually):
    desk.worker("holding", "-c", "2")
    desk.worker("answering", "-c", "2")
    closest = desk.finished(desk.submit("answer", desk.gate() | {"gate": str(desk.directory)}))
    assert closest.result == {"by": "holding"}, "both idle: the closer fit"
    held = desk.gate()
    stuck = [desk.submit("hold", held) for _ in range(2)]
    eventually(lambda: len(desk.journal(held)) == 2, 10, "both slots are taken")
    eventually(
        lambda: desk.engine.service.agent("holding_agent")["current_tasks"] == 2, 10, "it is told"
    )
    ended = desk.finished(desk.submit("answer", held))
    assert ended.result == {"by": "answering"}
    decision = ended.decision
    assert decision["agent"] == "answering_agent"
    assert "shortest expected wait" in decision["reason"]
    scores = {candidate["agent"]: candidate["score"] for candidate in decision["candidates"]}
    assert scores["holding_agent"] > scores["answering_agent"]
    desk.open_gate(held)
    for task in stuck:
        desk.finished(task)


def test_two_workers_of_a_role_on_one_host_have_names_of_their_own(desk):
    desk.worker("answering")
    desk.worker("answering")
    names = [worker.beat.node for worker in desk.live()]
    assert len(set(names)) == 2
    assert all(name.startswith("answering@") for name in names)
    agent = desk.engine.service.agent("answering_agent")
    assert (agent["status"], agent["max_concurrent_tasks"]) == ("idle", 8)


def test_a_worker_that_is_stopped_signs_off_and_finishes_what_it_holds(desk, eventually):
    payload = desk.gate()
    worker = desk.worker("holding")
    task = desk.submit("hold", payload)
    eventually(lambda: desk.journal(payload), 10, "the handler has begun")
    worker.send_signal(signal.SIGTERM)
    desk.open_gate(payload)
    assert desk.finished(task).attempts == 1
    assert worker.wait(20) == 0
    assert desk.live() == []


def test_a_dead_worker_is_offline_after_its_heartbeats_stopped(desk, eventually):
    worker = desk.worker("answering")
    os.kill(worker.pid, signal.SIGKILL)
    eventually(
        lambda: desk.engine.service.agent("answering_agent")["status"] == "offline",
        15,
        "it is offline",
    )
    health = desk.engine.service.agent_health("answering_agent")
    assert not health["healthy"]
    assert "no heartbeat" in health["problems"][0]


def test_a_bad_setting_stops_a_worker_with_a_line_that_names_it(desk):
    process = desk.spawn("celery", "-A", "probe.relay", "worker", log="bad", LEASE_S="soon")
    assert process.wait(30) != 0
    assert "LEASE_S='soon'" in desk.log("bad")


def test_what_a_worker_says_while_it_starts_is_json_too(desk, eventually):
    """Celery sets up logging only after the runtime's start; its own format would quote values."""
    desk.spawn(
        "celery", "-A", "probe.relay", "worker", log="early",
        MONGODB_URI=f"mongodb://127.0.0.1:{free_port()}",
    )  # fmt: skip
    lines = eventually(
        lambda: [line for line in desk.log("early").splitlines() if "waits_for_store" in line],
        30,
        "the worker says that it waits",
    )
    assert json.loads(lines[0])["event"] == "worker.waits_for_store"


def test_flower_is_not_opened_to_other_machines_without_a_password(desk):
    port = str(free_port())
    process = desk.spawn(
        "celery", "-A", "agents.all", "flower", "--address=0.0.0.0", f"--port={port}", log="flower"
    )  # fmt: skip
    assert process.wait(30) != 0
    assert "FLOWER_BASIC_AUTH" in desk.log("flower").splitlines()[-1]


def test_a_worker_leaves_nothing_in_redis_that_names_it_and_hears_what_all_are_told(desk):
    worker = desk.worker("answering")
    app = Celery("test", set_as_current=False)
    configure(app, desk.settings)
    assert len(app.control.ping(timeout=10, limit=1)) == 1
    os.kill(worker.pid, signal.SIGKILL)
    bound = {
        member
        for key in desk.engine.redis.keys("_kombu.binding.*")
        if not key.startswith("_kombu.binding.reply.")  # the caller's own; kombu removes it
        for member in desk.engine.redis.smembers(key)
    }
    assert bound == set()


def test_an_agent_is_found_by_its_folder(desk):
    found = subprocess.run(
        [sys.executable, "-c", "from orchestrator.declarations import discover;"
         "print(*sorted(discover('probe')))"],
        env=os.environ | desk.environment,
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert {"answering", "holding", "relay"} <= set(found.stdout.split())


def test_a_long_task_keeps_its_lease(desk, eventually):
    desk.environment |= {"LEASE_S": "2", "HEARTBEAT_S": "0.5"}
    payload = desk.gate()
    desk.worker("holding")
    task = desk.submit("hold", payload)
    eventually(lambda: desk.journal(payload), 10, "the handler has begun")
    began = desk.engine.store.get(task.id).check_at
    eventually(
        lambda: (desk.engine.store.get(task.id).check_at - began).total_seconds() > 4,
        15,
        "its lease was renewed for twice its length",
    )
    desk.open_gate(payload)
    assert (desk.finished(task).attempts, desk.finished(task).crashes) == (1, 0)
