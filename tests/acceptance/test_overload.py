"""A backlog does not hold up what is urgent, on a real worker."""

import pytest

from orchestrator.tasks import Priority, State

pytestmark = pytest.mark.acceptance

BACKLOG = 300
SLOTS = 4


def test_a_critical_task_overtakes_a_backlog_of_low_ones(desk):
    desk.worker("holding", "--concurrency", str(SLOTS))
    held = desk.gate()
    for _ in range(SLOTS):
        desk.submit("hold", held)
    desk.eventually(lambda: len(desk.journal(held)) == SLOTS, what="the slots are taken")
    passed = desk.gate()
    desk.open_gate(passed)
    low = [
        desk.submit("hold", passed | {"note": f"low {n}"}, priority=Priority.LOW)
        for n in range(BACKLOG)
    ]
    urgent = desk.submit("hold", passed | {"note": "urgent"}, priority=Priority.CRITICAL)
    desk.open_gate(held)
    desk.finished(urgent)
    desk.eventually(lambda: desk.state(low[-1]) is State.COMPLETED, 60, "the backlog is done")
    began = [line for line in desk.journal(passed) if line.startswith("began")]
    # Before it went only what the worker had fetched already.
    assert began.index("began urgent") <= 2 * SLOTS
