"""What a failed attempt leaves behind in its process."""

import gc
import logging

import pytest
from celery.app.trace import build_tracer
from pydantic import BaseModel

from orchestrator import make_app
from orchestrator.declarations import Agent
from orchestrator.settings import Settings
from orchestrator.worker import AttemptFailed


class Nothing(BaseModel):
    pass


def fail(context: object, payload: Nothing) -> None:
    """Never reached."""


def test_a_failure_is_gone_with_its_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.worker.current", Settings)
    # pytest keeps what is logged, and so the exception.
    monkeypatch.setattr(logging.getLogger("celery.app.trace"), "disabled", True)
    agent = Agent(role="fails", name="Fails", capabilities=[], slots=1)
    agent.handles("fail")(fail)
    app = make_app(agent)
    # Without a runtime, as in a process that is about to end, every attempt fails.
    trace = build_tracer("fail", app.tasks["fail"], app=app)

    def left() -> int:
        # Not isinstance: a proxy in there may have lost what it stands for.
        return sum(type(each) is AttemptFailed for each in gc.get_objects())

    gc.collect()
    before = left()
    gc.disable()
    try:
        for n in range(3):
            assert trace(f"task-{n}", ("id", 0), {}, {"hostname": "here"}).info is not None
        assert left() == before
    finally:
        gc.enable()
