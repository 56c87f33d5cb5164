"""Who may enter a process's slots, and with whom."""

import threading

import pytest
from pydantic import BaseModel

from orchestrator.declarations import Agent
from orchestrator.slots import Attempt, Slots


def attempt(name: str, soft_s: float = 1.0, hard_s: float = 2.0) -> Attempt:
    return Attempt("agent", "type", name, 1, soft_s, hard_s)


class Entering(threading.Thread):
    """Somebody who wants to enter, and may have to wait."""

    def __init__(self, slots: Slots, held: Attempt, *, alone: bool) -> None:
        super().__init__(daemon=True)
        self.held, self.entered = held, None
        self._slots, self._alone = slots, alone
        self.start()

    def run(self) -> None:
        self.entered = self._slots.enter(self.held, alone=self._alone)


def waits(slots: Slots, entering: Entering, eventually) -> bool:
    eventually(lambda: slots.count_by_agent()["agent"] > len(slots.inside()), 5, "it is there")
    return entering.held not in slots.inside()


def test_neighbours_enter_together():
    slots = Slots()
    for name in "abc":
        assert slots.enter(attempt(name), alone=False)
    assert len(slots.inside()) == 3


def test_a_suspect_waits_for_those_inside_and_those_that_come_later_wait_for_it(eventually):
    slots = Slots()
    first = attempt("first")
    slots.enter(first, alone=False)
    suspect = Entering(slots, attempt("suspect"), alone=True)
    assert waits(slots, suspect, eventually)
    late = Entering(slots, attempt("late"), alone=False)
    eventually(lambda: slots.count_by_agent()["agent"] == 3, 5, "both are there")
    assert slots.inside() == [first]
    slots.leave(first)
    eventually(lambda: suspect.entered, 5, "the suspect is inside")
    assert slots.inside() == [suspect.held]
    slots.leave(suspect.held)
    eventually(lambda: late.entered, 5, "the others go on")
    assert slots.inside() == [late.held]


def test_who_waits_is_sent_away_when_the_process_stops(eventually):
    slots = Slots()
    slots.enter(attempt("first"), alone=False)
    suspect = Entering(slots, attempt("suspect"), alone=True)
    assert waits(slots, suspect, eventually)
    slots.close()
    suspect.join(5)
    assert suspect.entered is False
    assert not slots.enter(attempt("late"), alone=False)
    assert slots.count_by_agent()["agent"] == 1


def test_limits_count_while_the_handler_runs_only():
    held = attempt("a")
    assert not held.past_hard(100.0)
    held.since = 10.0
    assert (held.past_soft(10.9), held.past_soft(11.1)) == (False, True)
    assert (held.past_hard(11.9), held.past_hard(12.1)) == (False, True)


class Payload(BaseModel):
    pass


def declared(**limits: float):
    agent = Agent(role="a", name="A", capabilities=[], slots=1)

    @agent.handles("t", **limits)
    def handler(context: object, payload: Payload) -> None:
        return None

    return agent.task_types["t"]


@pytest.mark.parametrize(
    ("limits", "holds"),
    [
        ({}, (120, 180)),
        ({"soft_limit_s": 600}, (600, 660)),
        ({"hard_limit_s": 10}, (10, 10)),
        ({"hard_limit_s": 600}, (120, 600)),
        ({"soft_limit_s": 1, "hard_limit_s": 2}, (1, 2)),
    ],
)
def test_a_type_without_a_limit_has_that_of_the_settings(limits, holds):
    assert declared(**limits).limits_s(120, 180) == holds


@pytest.mark.parametrize(
    "limits", [{"soft_limit_s": 0}, {"soft_limit_s": 2, "hard_limit_s": 1}, {"hard_limit_s": -1}]
)
def test_limits_that_cannot_hold_are_refused(limits):
    with pytest.raises(ValueError, match="limits"):
        declared(**limits)
