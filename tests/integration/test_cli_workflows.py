"""Workflows on the command line, as a process of its own on a real desk."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from orchestrator.declarations import Agent
from orchestrator.definitions import parse
from orchestrator.engine import Engine

worker = Agent(role="work", name="Worker", capabilities=["working"], slots=1)


class Anything(BaseModel):
    n: int = 0


@worker.handles("do", needs=["working"])
def do(context, asked: Anything):
    return {}


FLOW = """\
id: flow
name: A flow
needs: [n]
on:
  - cron: "0 9 * * 1-5"
    input: {n: 1}
steps:
  - id: a
    task: do
    payload: {n: "=input.n"}
  - id: q
    callback: approve
"""


@pytest.fixture
def desk(engine: Engine) -> Engine:
    engine.init([worker])
    return engine


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "flow.yaml"
    path.write_text(FLOW)
    return str(path)


def run_task(desk: Engine, **failing: str) -> None:
    found = desk.database["tasks"].find_one({"state": "queued"})
    claim = desk.store.claim(found["_id"], found["fence"], "test")
    ended = (
        desk.store.fail(claim, failing) if failing else desk.store.finish(claim, {"s": "secret"})
    )
    desk.coordinator.settle(ended)


def test_a_definition_is_put_listed_and_shown(
    desk: Engine, orchestrator: Callable, file: str
) -> None:
    dry, first, again, listed, table, shown, diagram, none = orchestrator(
        ["workflows", "put", file, "--dry-run"],
        ["workflows", "put", file],
        ["workflows", "put", file, "--json"],
        ["workflows", "list", "--json"],
        ["workflows", "list"],
        ["workflows", "show", "flow"],
        ["workflows", "diagram", "flow"],
        ["workflows", "show", "nope"],
    )
    assert dry.out == "flow is valid.\n"
    assert first.out == "flow is at version 1.\n"
    assert json.loads(again.out)["version"] == 1
    assert [each["id"] for each in json.loads(listed.out)] == ["flow"]
    assert "0 9 * * 1-5" in table.out
    assert parse(shown.out.partition("Versions")[0], "shown") == parse(FLOW, "written")
    assert diagram.out.startswith("flowchart TD\n")
    assert none.code == 1
    assert none.err.startswith("orchestrator: ")
    [entry] = desk.database["audit"].find({"action": "workflow.put"}).limit(1)
    assert entry["actor"].startswith("cli:")


def test_what_is_wrong_in_a_file_is_said_line_by_line(
    desk: Engine, orchestrator: Callable, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "id: wrong\n"
        "steps:\n"
        "  - id: a\n"
        "    task: unheard_of\n"
        "  - id: b\n"
        "    workflow: gone\n"
        "  - id: c\n"
        "    task: do\n"
        "    capabilities: [flying]\n"
    )
    broken = tmp_path / "broken.yaml"
    broken.write_text("id: broken\nsteps:\n  - id: a\n    condition: 'input.n >'\n    then: b\n")
    huge = tmp_path / "huge.yaml"
    huge.write_text("#" * 600_000)
    unstaffed, unread, large, gone = orchestrator(
        ["workflows", "put", str(wrong)],
        ["workflows", "put", str(broken)],
        ["workflows", "put", str(huge)],
        ["workflows", "put", str(tmp_path / "gone.yaml")],
    )
    assert unstaffed.code == 1
    assert [line.split(": ")[0] for line in unstaffed.err.splitlines()] == [
        f"{wrong}:4",
        f"{wrong}:6",
        f"{wrong}:8",
    ]
    assert unread.code == 1
    assert {line.split(": ")[0] for line in unread.err.splitlines()} <= {
        f"{broken}:{n}" for n in (3, 4, 5)
    }
    assert "larger than" in large.err
    assert "cannot be read" in gone.err
    assert desk.database["workflows"].count_documents({}) == 0


def test_runs_are_started_listed_shown_and_steered(
    desk: Engine, orchestrator: Callable, file: str
) -> None:
    _, started, again, lacking, bare = orchestrator(
        ["workflows", "put", file],
        ["workflows", "start", "flow", "--input", '{"n": 1}', "--key", "k", "--json"],
        ["workflows", "start", "flow", "--input", '{"n": 1}', "--key", "k"],
        ["workflows", "start", "flow"],
        ["workflows", "start", "flow", "--input", "[]"],
    )
    run_id = json.loads(started.out)["run_id"]
    assert json.loads(started.out)["new"] is True
    assert again.out.startswith(run_id)
    assert "started before" in again.out
    assert (lacking.code, bare.code) == (1, 1)
    assert "needs n" in lacking.err
    run_task(desk)
    listed, shown, table, full, diagram = orchestrator(
        ["runs", "list", "--workflow", "flow", "--state", "running", "--since", "1h", "--json"],
        ["runs", "show", run_id, "--json"],
        ["runs", "show", run_id],
        ["runs", "show", run_id, "--results"],
        ["runs", "diagram", run_id],
    )
    assert [each["run_id"] for each in json.loads(listed.out)] == [run_id]
    steps = json.loads(shown.out)["steps"]
    assert [(step["step"], step["state"]) for step in steps] == [
        ("a", "completed"),
        ("q", "active"),
    ]
    assert json.loads(shown.out)["waits_for"] == ["approve"]
    # A row for each step; results only where they are asked for.
    assert re.search(rf"a:1 +task +completed +1 +next .*{run_id}\.a:1\.1", table.out)
    assert "secret" not in shown.out + table.out
    assert "secret" in full.out
    assert "class a completed" in diagram.out
    paused, twice, resumed, answered, late, gone = orchestrator(
        ["runs", "pause", run_id],
        ["runs", "pause", run_id],
        ["runs", "resume", run_id, "--json"],
        ["runs", "answer", run_id, "approve", "--payload", '{"yes": true}'],
        ["runs", "cancel", run_id],
        ["runs", "show", "nope"],
    )
    assert paused.out == f"{run_id} is paused.\n"
    assert (twice.code, late.code, gone.code) == (1, 1, 1)
    assert json.loads(resumed.out)["state"] == "running"
    assert answered.out == f"{run_id} is completed.\n"


def test_a_run_is_cancelled_and_retried(desk: Engine, orchestrator: Callable, file: str) -> None:
    _, first, second = orchestrator(
        ["workflows", "put", file],
        ["workflows", "start", "flow", "--input", '{"n": 1}', "--json"],
        ["workflows", "start", "flow", "--input", '{"n": 2}', "--json"],
    )
    failed, cancelled = (json.loads(each.out)["run_id"] for each in (first, second))
    run_task(desk, code="broken", detail="Broken.")
    again, ended, listed = orchestrator(
        ["runs", "retry", failed],
        ["runs", "cancel", cancelled, "--json"],
        ["runs", "list", "--state", "cancelled"],
    )
    assert again.out == f"{failed} is running.\n"
    assert json.loads(ended.out)["state"] == "cancelled"
    assert cancelled in listed.out
    assert failed not in listed.out
