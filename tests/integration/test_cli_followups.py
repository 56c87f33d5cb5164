"""Follow-ups on the command line, as a process of its own on a real desk."""

import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from agents.followup.agent import agent
from orchestrator.engine import Engine
from tests.integration.followup_desk import FollowupDesk

RULES = """
spread: 0s
rules:
  - {id: idle, on: conversation_idle, after: 24h, message: conversation_idle}
"""


@pytest.fixture
def desk(engine: Engine, workers: Callable[..., Any]) -> FollowupDesk:
    desk = FollowupDesk(engine, workers(agent))
    for name in ("ann", "bob"):
        desk.said(name, "pregunta")
    # The commands run in real time: the conversations are those of yesterday.
    at = engine.clock.now() - dt.timedelta(hours=25)
    for name in ("ann", "bob"):
        engine.database["sessions"].update_one(
            {"_id": name}, {"$set": {"updated_at": at, "active_at": at}}
        )
    engine.contacts.opt_out(engine.sessions.get("bob").address)
    return desk


def test_what_would_go_out_what_is_planned_and_what_is_cancelled(
    desk: FollowupDesk, orchestrator: Callable[..., Any], tmp_path: Any
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    always = {
        "FOLLOWUPS_FILE": str(tmp_path / "rules.yaml"),
        "BUSINESS_HOURS": "mon-sun 00:00-24:00",
        "BUSINESS_COUNTRY": "",
    }
    shown, told, listed, ran, again = orchestrator(
        ["followups", "run", "--dry-run"],
        ["followups", "run", "--dry-run", "--json"],
        ["followups", "list", "--json"],
        ["followups", "run"],
        ["followups", "list"],
        **always,
    )
    assert re.search(r"ann\s+idle\s+25\.0 h\s+send\s+due", shown.out), shown.err
    assert re.search(r"bob\s+idle\s+25\.0 h\s+skip\s+opted_out", shown.out)
    assert "1 would go out, 0 wait, 1 do not go out." in shown.out
    found = json.loads(told.out)["followups"]
    assert [(each["session_id"], each["verdict"]) for each in found] == [
        ("ann", "send"),
        ("bob", "skip"),
    ]
    assert json.loads(listed.out) == []
    assert ran.out == "1 planned, of 2 looked at.\n"
    assert "1 follow-ups." in again.out
    (followup,) = desk.followups()
    # Rules that cannot be used stop whatever needs them.
    (refused,) = orchestrator(
        ["followups", "run", "--dry-run"], **always | {"FOLLOWUPS_FILE": __file__}
    )
    assert refused.code == 1
    assert "FOLLOWUPS_FILE: test_cli_followups.py" in refused.err
    one, other, unknown = orchestrator(
        ["followups", "cancel", followup["_id"]],
        ["followups", "list", "--state", "cancelled", "--json"],
        ["followups", "cancel", "nothing"],
        **always,
    )
    assert (one.code, one.out) == (0, f"{followup['_id']} is cancelled.\n")
    assert [each["id"] for each in json.loads(other.out)] == [followup["_id"]]
    assert (unknown.code, unknown.err) == (1, "orchestrator: No such follow-up\n")
