"""MongoDB and Redis go away under a worker, whatever it is doing, and come back."""

from contextlib import contextmanager

import pytest

from orchestrator.tasks import State

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

BACK_WITHIN_S = 30.0
LEASE_S = 2.0


@contextmanager
def away(server, for_s=0.0, eventually=None, clock=None):
    """The server is dead within, and back on the same data afterwards."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@pytest.fixture
def worker(desk):
    """A worker with two slots and a short lease, the engine beside it alike."""
    desk.environment |= {"LEASE_S": str(LEASE_S), "HEARTBEAT_S": "0.5"}
    return desk.worker("wild", "-c", "2")


def begun(desk, payload, lines=1):
    desk.eventually(lambda: len(desk.journal(payload)) >= lines, 15, "the handler has begun")


def works(desk, worker) -> None:
    """It is the same process, and does what is asked of it."""
    payload = desk.gate()
    desk.open_gate(payload)
    ended = desk.finished(desk.submit("hold_blindly", payload), BACK_WITHIN_S)
    assert ended.state is State.COMPLETED
    assert worker.poll() is None, desk.log("wild")[-3000:]


def seen(desk, event: str, since: int = 0):
    desk.eventually(lambda: desk.log("wild").count(event) > since, 15, event)


def longer_than_a_lease(desk) -> None:
    """Until the worker has failed to store for longer than its lease."""
    tries = desk.log("wild").count('"step": "lease"')
    desk.eventually(lambda: desk.log("wild").count('"step": "lease"') > tries + 3, 30, "a lease")


@pytest.mark.parametrize("long", [False, True], ids=["briefly", "past its lease"])
def test_mongodb_goes_away_under_a_worker_that_waits_for_work(desk, worker, long):
    with away(desk.mongo_server):
        if long:
            longer_than_a_lease(desk)
    works(desk, worker)


@pytest.mark.parametrize("long", [False, True], ids=["briefly", "past its lease"])
def test_mongodb_goes_away_while_a_handler_runs_and_its_attempt_stands(desk, worker, long):
    payload = desk.gate()
    task = desk.submit("hold_blindly", payload)
    begun(desk, payload)
    with away(desk.mongo_server):
        if long:
            longer_than_a_lease(desk)
    works(desk, worker)
    desk.open_gate(payload)
    ended = desk.finished(task)
    assert (ended.state, ended.attempts, ended.crashes) == (State.COMPLETED, 1, 0)


@pytest.mark.parametrize("long", [False, True], ids=["briefly", "past its lease"])
def test_a_result_is_kept_while_mongodb_is_away_and_stored_when_it_is_back(desk, worker, long):
    payload = desk.gate()
    task = desk.submit("hold_blindly", payload)
    begun(desk, payload)
    with away(desk.mongo_server):
        desk.open_gate(payload)
        seen(desk, '"step": "finish"')
        if long:
            longer_than_a_lease(desk)
    ended = desk.finished(task, BACK_WITHIN_S)
    assert (ended.state, ended.attempts, ended.crashes) == (State.COMPLETED, 1, 0)
    assert desk.journal(payload) == ["began ", "ended "]
    works(desk, worker)


def test_a_worker_takes_no_task_while_mongodb_is_away(desk, worker):
    tasks = []
    payload = desk.gate()
    desk.open_gate(payload)
    held = desk.gate()
    first = [desk.submit("hold_blindly", held | {"note": str(n)}) for n in range(2)]
    begun(desk, held, 2)
    tasks = [desk.submit("hold_blindly", payload | {"note": str(n)}) for n in range(4)]
    with away(desk.mongo_server):
        desk.open_gate(held)
        seen(desk, '"step": "finish"', 1)
        assert desk.journal(payload) == []
    for task in [*first, *tasks]:
        ended = desk.finished(task, BACK_WITHIN_S)
        assert (ended.state, ended.attempts) == (State.COMPLETED, 1)


def test_redis_goes_away_again_and_again_whatever_the_worker_is_doing(desk, worker):
    for n in range(4):
        running, waiting = desk.gate(), desk.gate()
        task = desk.submit("hold_blindly", running)
        begun(desk, running)
        more = []
        with away(desk.redis_server):
            if n % 2:
                desk.open_gate(running)  # it finishes, and acknowledges to nobody
                desk.eventually(lambda t=task: desk.state(t).final, 20, "it is stored")
            more.append(desk.submit("hold_blindly", waiting))
            if n > 1:
                seen(desk, "worker.heartbeat_lost", desk.log("wild").count("heartbeat_lost") + 1)
        desk.open_gate(running)
        desk.open_gate(waiting)
        for each in [task, *more]:
            ended = desk.finished(each, BACK_WITHIN_S)
            assert (ended.state, ended.attempts) == (State.COMPLETED, 1)
        works(desk, worker)
