"""What a stream says of a task's timeline and of a session's messages, and under which numbers."""

import datetime as dt
import json
import re
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.events import Event, Line, session_events, task_events
from orchestrator.context import Message, Role
from orchestrator.events import SessionNews, SessionState
from orchestrator.tasks import TIMELINE_LENGTH, Priority, State, Task

AT = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
OPEN = SessionState(owner="bot", status="open", working=False)


def task(happened: list[str], **more: Any) -> Task:
    """A chat task to which these things happened; its timeline is cut as the store cuts it."""
    timeline = [{"at": AT + dt.timedelta(seconds=n), "event": e} for n, e in enumerate(happened)]
    fields = {
        "id": "t1",
        "type": "process_message",
        "payload": {"session_id": "s1"},
        "session_id": "s1",
        "agent": "conversation_agent",
        "queue": "conversation",
        "priority": Priority.NORMAL,
        "caller": "local",
        "state": State(happened[-1]) if happened[-1] in list(State) else State.RUNNING,
        "fence": len(happened),
        "created_at": AT,
        "finished_at": AT,
        "result": {"text": "Hello!"} if happened[-1] == "completed" else None,
        "events": len(happened),
        "timeline": tuple(timeline[-TIMELINE_LENGTH:]),
    }
    return Task(**(fields | more))


def names(events: list[Event]) -> list[str]:
    return [event.facts.get("name", event.name) for event in events]


def numbers(events: list[Event]) -> list[int]:
    assert all(event.number is not None for event in events)
    return [event.number for event in events if event.number is not None]


HAPPENED = ["accepted", "promoted", "claimed", "waiting", "resumed", "claimed", "completed"]


def test_a_chat_task_reads_as_a_run_with_steps_and_its_reply() -> None:
    assert names(task_events(task(HAPPENED), 0)) == [
        "RUN_STARTED", "task.promoted",
        "STEP_STARTED", "STEP_FINISHED", "task.waiting", "task.resumed",
        "STEP_STARTED", "STEP_FINISHED",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("happened", "end"),
    [
        (["accepted", "cancelled"], ["RUN_STARTED", "RUN_ERROR"]),
        (
            ["accepted", "claimed", "cancel_requested", "cancelled"],
            [
                "RUN_STARTED",
                "STEP_STARTED",
                "task.cancel_requested",
                "STEP_FINISHED",
                "RUN_ERROR",
            ],
        ),
        (
            ["accepted", "claimed", "failed"],
            ["RUN_STARTED", "STEP_STARTED", "STEP_FINISHED", "RUN_ERROR"],
        ),
    ],
)
def test_what_does_not_succeed_ends_in_an_error(happened: list[str], end: list[str]) -> None:
    error = {"code": "cancelled", "detail": "Cancelled."}
    events = task_events(task(happened, error=error), 0)
    assert names(events) == end
    assert (events[-1].facts["code"], events[-1].facts["message"]) == ("cancelled", "Cancelled.")


def test_a_child_that_nobody_could_do_ends_though_nothing_happened_to_it() -> None:
    refused = task(["accepted"], state=State.FAILED, error={"code": "no_capable_agent"})
    assert names(task_events(refused, 0)) == ["RUN_STARTED", "RUN_ERROR"]


def test_an_end_that_was_taken_back_by_a_replay_is_none() -> None:
    replayed = task(["accepted", "claimed", "failed", "replayed", "claimed"])
    assert "RUN_ERROR" not in names(task_events(replayed, 0))


@given(cut=st.integers(0, 400), seen=st.integers(0, 5000))
def test_numbers_rise_and_name_the_same_event_for_ever(cut: int, seen: int) -> None:
    """Also past the 200 that a timeline keeps; who has seen one is sent what came after it."""
    happened = ["accepted", *["claimed", "retried"] * cut, "claimed"]
    whole = task_events(task(happened), 0)
    assert numbers(whole) == sorted(set(numbers(whole)))
    later = task_events(task([*happened, "completed"]), 0)
    same = {e.number: e for e in later}
    for event in whole:
        if event.number in same and event.facts.get("name") != "timeline.cut":
            assert same[event.number] == event
    resumed = task_events(task(happened), seen)
    kept = [event for event in resumed if event.facts.get("name") != "timeline.cut"]
    assert kept == [e for e in whole if e.number > seen and e.facts.get("name") != "timeline.cut"]


def test_who_comes_back_too_late_is_told_how_many_events_are_gone() -> None:
    happened = ["accepted", *["claimed", "retried"] * 150]
    events = task_events(task(happened), 0)
    assert names(events)[0] == "timeline.cut"
    assert events[0].facts["value"] == {"events": len(happened) - TIMELINE_LENGTH}
    assert numbers(events) == sorted(numbers(events))
    assert names(task_events(task(happened), numbers(events)[0]))[0] != "timeline.cut"


def message(n: int, role: Role = "customer", text: str = "hola") -> Message:
    return Message("s1", n, role, text, AT, None, {})


def test_a_session_tells_its_state_without_a_number_and_messages_with_one() -> None:
    said = [message(1), message(2, "assistant"), message(3, "person")]
    events = session_events(SessionNews(OPEN, said, 3, False), 0, None)
    assert events[0].name == "STATE_DELTA"
    assert events[0].number is None
    assert {d["path"]: d["value"] for d in events[0].facts["delta"]} == {
        "/owner": "bot", "/status": "open", "/working": False,
    }  # fmt: skip
    starts = [event for event in events if event.name == "TEXT_MESSAGE_START"]
    assert [(e.facts["role"], e.facts["author"]) for e in starts] == [
        ("user", "customer"), ("assistant", "assistant"), ("assistant", "person"),
    ]  # fmt: skip
    assert numbers(events[1:]) == [10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_of_a_state_only_what_has_changed_is_told() -> None:
    taken = SessionState(owner="human", status="open", working=False)
    [delta] = session_events(SessionNews(taken, [], 3, False), 32, OPEN)
    assert delta.facts["delta"] == [{"op": "add", "path": "/owner", "value": "human"}]
    assert session_events(SessionNews(taken, [], 3, False), 32, taken) == []


def test_a_message_goes_on_in_its_middle() -> None:
    events = session_events(SessionNews(OPEN, [message(3)], 3, False), 30, OPEN)
    assert [(event.name, event.number) for event in events] == [
        ("TEXT_MESSAGE_CONTENT", 31), ("TEXT_MESSAGE_END", 32),
    ]  # fmt: skip


def test_a_closed_session_ends_once_and_after_its_last_message() -> None:
    closed = SessionState(owner="bot", status="closed", working=False)
    unfinished = SessionNews(closed, [message(1)], 1, True)
    assert names(session_events(unfinished, 0, closed))[-1] == "TEXT_MESSAGE_END"
    end = session_events(SessionNews(closed, [], 4, False), 42, closed)
    assert [(names(end)[0], numbers(end))] == [("session.closed", [49])]
    assert session_events(SessionNews(closed, [], 4, False), 49, closed) == []


@given(st.text())
def test_whatever_a_text_holds_it_is_one_event_on_the_wire(text: str) -> None:
    text = text.encode(errors="replace").decode()
    wire = Event("TEXT_MESSAGE_CONTENT", {"delta": text}, 11).encode()
    assert wire.startswith("id: 11\nevent: TEXT_MESSAGE_CONTENT\ndata: ")
    # As the standard splits it: by any of these, and an empty line ends the event.
    lines = re.split(r"\r\n|\r|\n", wire)
    assert lines[3:] == ["", ""]
    assert json.loads(lines[2].removeprefix("data: "))["delta"] == text


def test_a_line_is_dead_when_the_client_has_closed_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(ours, 0.2)
        line.hurry()
        assert not line.is_dead()
        # A client that does not read costs no more than its patience.
        with pytest.raises(TimeoutError):
            ours.sendall(b"x" * 10_000_000)
        theirs.close()
        assert line.is_dead()
