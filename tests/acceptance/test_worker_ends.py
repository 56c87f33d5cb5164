"""How a worker ends, and what becomes of what it held: asked to stop, stuck, poisoned."""

import signal
import threading

import pytest

from orchestrator.tasks import State

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

POOLS = ["threads", "prefork"]


def begun(desk, payload, lines=1):
    desk.eventually(lambda: len(desk.journal(payload)) >= lines, 15, "the handler has begun")


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_not_finished_within_the_grace_time_is_handed_back_and_costs_nothing(desk, pool):
    desk.environment["SHUTDOWN_GRACE_S"] = "1"
    payload = desk.gate()
    worker = desk.worker("holding", "-P", pool)
    task = desk.submit("hold", payload)
    begun(desk, payload)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    handed_back = desk.engine.store.get(task.id)
    assert (handed_back.state, handed_back.failures, handed_back.crashes) == (State.QUEUED, 0, 0)
    desk.open_gate(payload)
    desk.worker("holding")
    ended = desk.finished(task)
    assert (ended.state, ended.failures, ended.crashes) == (State.COMPLETED, 0, 0)


@pytest.mark.parametrize("pool", POOLS)
def test_a_second_request_to_stop_hands_back_at_once(desk, pool):
    desk.environment["SHUTDOWN_GRACE_S"] = "3600"
    payload = desk.gate()
    worker = desk.worker("holding", "-P", pool)
    task = desk.submit("hold", payload)
    begun(desk, payload)
    worker.send_signal(signal.SIGTERM)
    desk.eventually(lambda: stops(desk, worker), 10, "the first was seen")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert desk.state(task) is State.QUEUED


def stops(desk, worker) -> bool:
    """It takes nothing any more: what is submitted stays in its queue."""
    return "worker.stopping" in desk.log("holding")


def test_a_worker_ends_in_its_grace_time_though_mongodb_is_away(desk):
    desk.environment["SHUTDOWN_GRACE_S"] = "1"
    payload = desk.gate()
    worker = desk.worker("holding")
    task = desk.submit("hold", payload)
    begun(desk, payload)
    desk.mongo_server.kill()
    try:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        desk.mongo_server.start()
    desk.open_gate(payload)
    desk.worker("holding")
    assert desk.finished(task, 40).state is State.COMPLETED


def test_a_handler_that_heeds_its_soft_limit_has_failed_and_is_tried_again(desk):
    desk.worker("wild")
    ended = desk.finished(desk.submit("heed_the_limit", desk.gate()), 20)
    assert (ended.state, ended.result) == (State.COMPLETED, {"failures": 1})
    assert "time_limit" in [event.get("code") for event in ended.timeline]


@pytest.mark.parametrize("pool", POOLS)
def test_a_stuck_handler_is_seen_and_given_up_and_costs_its_neighbours_nothing(desk, pool):
    stuck, neighbours = desk.gate(), desk.gate()
    worker = desk.worker("wild", "-P", pool)
    held = [desk.submit("patient_hold", neighbours | {"note": str(n)}) for n in range(2)]
    begun(desk, neighbours, 2)
    task = desk.submit("never_return", stuck)
    if pool == "threads":
        desk.eventually(
            lambda: desk.engine.service.agent("wild_agent")["status"] == "error", 10, "it is seen"
        )
        (reason,) = desk.engine.service.agent_health("wild_agent")["problems"]
        assert f"{task.id} (never_return) has not returned within its limit of 1 s" in reason
        assert worker.wait(20) == 70
        assert "past the hard time limit" in desk.log("wild")
        desk.worker("wild")
    desk.open_gate(neighbours)
    ended = desk.finished(task, 20)
    assert (ended.state, ended.failures, ended.crashes) == (State.COMPLETED, 1, 0)
    for neighbour in held:
        ended = desk.finished(neighbour)
        assert (ended.state, ended.failures, ended.crashes) == (State.COMPLETED, 0, 0)


def test_a_task_that_kills_every_worker_is_a_dead_letter_and_its_neighbours_are_done(desk):
    desk.environment |= {"LEASE_S": "1.5", "HEARTBEAT_S": "0.3", "MAX_CRASHES": "4"}
    gate, poison = desk.gate(), desk.gate()
    over = threading.Event()
    supervisor = threading.Thread(target=supervise, args=(desk, over))
    supervisor.start()
    try:
        desk.eventually(lambda: desk.live(), 20, "a worker")
        held = [desk.submit("patient_hold", gate | {"note": str(n)}) for n in range(3)]
        begun(desk, gate, 3)
        task = desk.submit("kill_the_process", poison)
        begun(desk, poison, 2)
        desk.open_gate(gate)
        ended = desk.finished(task, 90)
        assert (ended.state, ended.error["code"], ended.crashes) == (State.FAILED, "worker_lost", 5)
        for neighbour in held:
            done = desk.finished(neighbour, 30)
            assert (done.state, done.failures) == (State.COMPLETED, 0)
            assert done.crashes <= 2
    finally:
        over.set()
        supervisor.join()


def supervise(desk, over: threading.Event) -> None:
    """Start the worker again whenever it ends, as a supervisor does."""
    while not over.is_set():
        process = desk.spawn("celery", "-A", "probe.wild", "worker", log="wild")
        while process.poll() is None and not over.is_set():
            over.wait(0.1)
