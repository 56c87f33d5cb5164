"""A follow-up whose worker is killed after any of its writes: nothing is lost, nothing doubled."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo.collection import Collection

from agents.followup.agent import agent
from agents.followup.sending import Said, Sending
from agents.stores import stores_of
from orchestrator.engine import Engine
from tests.integration.followup_desk import FollowupDesk

RULES = """
caps: {per_customer: [{most: 1, within: 20h}]}
spread: 0s
rules:
  - {id: idle, on: conversation_idle, after: 24h, message: conversation_idle}
"""
WRITES = ("insert_one", "insert_many", "update_one", "update_many", "delete_one", "bulk_write")
TRIALS = 50
SAID = Said("¿Seguimos?", "conversation_idle", "es", ["Ana"])


class Killed(BaseException):
    """The process is gone: the write was done, and nobody heard of it."""


@contextmanager
def killed_after(n: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die after the n-th write from here on; how many there were."""
    made = [0]

    def counting(write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            done = write(*args, **kwargs)
            made[0] += 1
            if made[0] == n:
                raise Killed
            return done

        return counted

    with monkeypatch.context() as patched:
        for name in WRITES:
            patched.setattr(Collection, name, counting(getattr(Collection, name)))
        yield made


@pytest.fixture
def settings(settings: Any, tmp_path: Any) -> Any:
    (tmp_path / "rules.yaml").write_text(RULES)
    always = {"business_hours": "mon-sun 00:00-24:00", "business_country": None}
    return settings.model_copy(update={"followups_file": tmp_path / "rules.yaml"} | always)


@pytest.mark.timeout(240)
def test_killed_after_any_write_it_goes_out_once(
    engine: Engine,
    workers: Callable[..., Any],
    advance: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = FollowupDesk(engine, workers(agent))
    began = []
    for n in range(TRIALS):
        desk.said(f"s{n}", "pregunta")
        began.append(engine.clock.now())
        advance(600)
    sending, rescuer = Sending(engine), engine.rescuer("kills", eager=True)
    writes = None
    for n in range(TRIALS):
        # This one becomes due, and the next not yet.
        due = began[n] + dt.timedelta(hours=24, minutes=2)
        advance((due - engine.clock.now()).total_seconds())
        session = f"s{n}"
        with killed_after(n + 1, monkeypatch) as made:

            def again(step: Callable[[], Any]) -> Any:
                """As the rescuer has it: what did not come to its end is run once more."""
                try:
                    return step()
                except Killed:
                    advance(31)
                    return step()

            again(lambda: sending.find(100))
            found = desk.followups(session_id=session)
            if not found:
                # Killed before it was planned: the next pass finds it.
                sending.find(100)
                found = desk.followups(session_id=session)
            (followup,) = found
            verdict = again(lambda: sending.check(followup["_id"]))["verdict"]  # noqa: B023
            assert verdict == "send"
            told = again(lambda: sending.send(followup["_id"], "task", SAID))  # noqa: B023
            assert told["verdict"] == "sent"
            writes = made[0]
        advance(31)
        rescuer.run_once()
        sending.find(100)
        desk.tick()
        said = [
            each
            for each in engine.sessions.messages(engine.sessions.get(session))
            if "follow_up" in each.facts
        ]
        assert len(said) == 1, n
        (entry,) = engine.database["outbox"].find({"session_id": session})
        assert entry["state"] == "sent"
        (followup,) = desk.followups(session_id=session)
        assert (followup["state"], followup["entries"]) == ("sent", [entry["_id"]])
        assert followup["sent_at"] == said[0].at
        book = stores_of(engine).followups.book(f"customer {followup['customer']}")
        assert [each.id for each in book] == [followup["_id"]]
        runs = engine.database["runs"].find({"input.followup_id": followup["_id"]})
        assert [run["state"] for run in runs] == ["running"]
        if writes <= n:
            break
    # Every write has had its turn.
    assert writes is not None
    assert 15 < writes <= n
