"""The operators' command line, as a process of its own on a real desk."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agents.quote.agent import agent
from orchestrator.context import Writer, ordering_key
from orchestrator.engine import Engine
from orchestrator.outbox import Outgoing
from orchestrator.registry import Heartbeat
from orchestrator.tasks import Request, State

QUESTION = {"question": "¿Se quema el isodec?"}


@pytest.fixture
def desk(engine: Engine) -> Engine:
    engine.init([agent])
    return engine


def told(run: Any) -> Any:
    assert (run.code, run.err) == (0, "")
    return json.loads(run.out)


def error_of(run: Any) -> str:
    """The one line that says what is wrong."""
    assert (run.code, run.out) == (1, "")
    (line,) = run.err.splitlines()
    return line


def question(**options: str) -> list[str]:
    asked = ["submit", "answer_product_question", "--payload", json.dumps(QUESTION)]
    return asked + [word for name, value in options.items() for word in (f"--{name}", value)]


def test_the_command_runs_as_a_program(project: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "--help"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0
    for command in ("init", "status", "agents", "tasks", "show", "submit", "cancel"):
        assert f"  {command} " in run.stdout


def test_dead_letters_are_listed_shown_replayed_and_discarded(
    orchestrator: Callable[..., list[Any]], desk: Engine
) -> None:
    letters = []
    for code in ("broken", "broken", "other"):
        task, _ = desk.coordinator.submit(Request("answer_product_question", QUESTION))
        claim = desk.store.claim(task.id, task.fence, "quote@here")
        letters.append(desk.store.fail(claim, {"code": code, "detail": f"It is {code}."}).id)
    table, listed, shown, replayed, discarded, neither, gone = orchestrator(
        ["dead-letters", "list"],
        ["dead-letters", "list", "--code", "other", "--since", "1h", "--json"],
        ["dead-letters", "show", letters[0]],
        ["dead-letters", "replay", letters[0]],
        ["dead-letters", "discard", "--all", "--code", "broken", "--json"],
        ["dead-letters", "replay"],
        ["dead-letters", "show", letters[0]],
    )
    assert all(letter in table.out for letter in letters)
    assert "3 dead letters." in table.out
    assert [each["task_id"] for each in told(listed)] == letters[2:]
    assert "It is broken." in shown.out
    assert "quote@here" in shown.out
    assert replayed.out == f"{letters[0]} is replayed: queued.\n"
    assert told(discarded) == {"done": 1, "refused": [], "more": False}
    assert error_of(neither) == "orchestrator: name one task, or say --all"
    assert "not a dead letter" in error_of(gone)
    states = [desk.store.get(letter).state for letter in letters]
    assert states == [State.QUEUED, State.FAILED, State.FAILED]
    acts, _ = desk.audit.page(10)
    assert all(act["actor"].startswith("cli:") for act in acts)


def test_init_declares_every_agent_of_the_package(
    orchestrator: Callable[..., list[Any]], engine: Engine
) -> None:
    first, again, shown = orchestrator(["init", "--json"], ["init", "--json"], ["init"])
    assert told(first) == told(again)
    declared = engine.declarations.all(fresh=True)
    assert {each["agent_id"] for each in told(first)["agents"]} == declared.keys()
    assert "quote_agent" in shown.out


def test_a_task_is_submitted_listed_shown_and_cancelled(
    orchestrator: Callable[..., list[Any]], desk: Engine
) -> None:
    ask = question(priority="high", capability="product_knowledge", key="k1")
    first, again, listed, failed, later, table = orchestrator(
        [*ask, "--json"],
        ask,
        ["tasks", "--json"],
        ["tasks", "--state", "failed", "--json"],
        ["tasks", "--since", "2100-01-01", "--json"],
        ["tasks", "--since", "2h", "--limit", "5"],
    )
    submitted = told(first)
    task_id = submitted["task_id"]
    assert (submitted["state"], submitted["priority"]) == ("queued", "high")
    assert (submitted["agent"], submitted["new"]) == ("quote_agent", True)
    assert desk.store.get(task_id).caller == "operator"
    assert again.code == 0
    assert task_id in again.out
    assert "accepted before" in again.out
    assert [each["task_id"] for each in told(listed)] == [task_id]
    assert told(failed) == told(later) == []
    assert task_id in table.out
    assert "answer_product_question" in table.out

    shown, as_json, with_payload, cancelled, too_late = orchestrator(
        ["show", task_id],
        ["show", task_id, "--json"],
        ["show", task_id, "--payload"],
        ["cancel", task_id, "--json"],
        ["cancel", task_id],
    )
    assert "accepted" in shown.out
    assert "the only agent that can do it" in shown.out
    assert told(as_json)["timeline"][0]["event"] == "accepted"
    assert told(as_json)["decision"]["agent"] == "quote_agent"
    # What customers wrote is shown to those who ask for it.
    assert QUESTION["question"] in with_payload.out
    for run in (first, again, listed, table, shown, as_json, cancelled):
        assert QUESTION["question"] not in run.out
    assert told(cancelled)["state"] == "cancelled"
    assert desk.store.get(task_id).state is State.CANCELLED
    assert "already ended" in error_of(too_late)


def test_waiting_shows_what_came_of_it(
    orchestrator: Callable[..., list[Any]],
    desk: Engine,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    file = tmp_path / "payload.json"
    file.write_text(json.dumps(QUESTION), encoding="utf-8")
    ask = ["submit", "answer_product_question", "--payload", f"@{file}", "--wait", "30"]
    tasks = desk.database["tasks"]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(orchestrator, ask, ask)
        for end in (
            lambda claim: desk.store.finish(claim, {"text": "No."}),
            lambda claim: desk.store.fail(claim, {"code": "broken", "detail": "It broke."}),
        ):
            task = eventually(lambda: tasks.find_one({"state": "queued"}), timeout_s=60)
            desk.coordinator.settle(end(desk.store.claim(task["_id"], task["fence"], "worker")))
        completed, failed = waiting.result()
    assert completed.code == 0
    assert '"text": "No."' in completed.out
    assert failed.code == 1
    assert '"code": "broken"' in failed.out


def test_status_and_agents_show_workers_as_the_registry_has_them(
    orchestrator: Callable[..., list[Any]], desk: Engine
) -> None:
    (nobody,) = orchestrator(["status", "--json"])
    assert told(nobody)["status"] == "down"
    beat = Heartbeat(
        worker="quote@host-1/1/abc",
        node="quote@host-1",
        agents={"quote_agent": 5},
        running={"quote_agent": 2},
    )
    desk.registry.beat(beat)
    status, agents, status_table, agents_table = orchestrator(
        ["status", "--json"], ["agents", "--json"], ["status"], ["agents"]
    )
    assert told(status)["status"] == "degraded"  # nobody rescues
    assert told(status)["dependencies"] == {"mongodb": True, "redis": True}
    (quote,) = told(agents)
    assert (quote["agent_id"], quote["status"]) == ("quote_agent", "busy")
    assert (quote["current_tasks"], quote["max_concurrent_tasks"]) == (2, 5)
    assert "quote@host-1" in agents_table.out
    assert "degraded" in status_table.out
    assert "nobody rescues" in status_table.out


def test_what_cannot_be_done_is_one_line_and_exit_code_1(
    orchestrator: Callable[..., list[Any]], desk: Engine
) -> None:
    wrong = [
        ("No such task", ["show", "nothing"]),
        ("No such task", ["cancel", "nothing", "--json"]),
        ("No declared agent can do this", ["submit", "nothing"]),
        ("flying", ["submit", "create_quote", "--capability", "flying"]),
        ("/items", ["submit", "create_quote", "--payload", '{"items": []}']),
        ("not JSON", ["submit", "create_quote", "--payload", "{"]),
        ("must be a JSON object", ["submit", "create_quote", "--payload", "[]"]),
        ("cannot be read", ["submit", "create_quote", "--payload", "@/nothing"]),
        ("--since 'yesterday'", ["tasks", "--since", "yesterday"]),
        ("--since '999999d'", ["tasks", "--since", "999999d"]),
    ]
    runs = orchestrator(*(command for _, command in wrong))
    for (words, _), run in zip(wrong, runs, strict=True):
        line = error_of(run)
        assert line.startswith("orchestrator: ")
        assert words in line


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PORT": "99999"}, "PORT='99999'"),
        ({"MONGODB_URI": "mongodb://127.0.0.1:1", "STORE_TIMEOUT_S": "0.2"}, "MONGODB_URI"),
        ({"AGENTS_PACKAGE": "nothing_of_the_kind"}, "nothing_of_the_kind"),
        ({"IMPORT_DIR": "/nothing"}, "IMPORT_DIR='/nothing'"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    orchestrator: Callable[..., list[Any]], variables: dict[str, str], words: str
) -> None:
    (run,) = orchestrator(["init"], **variables)
    assert words in error_of(run)


def test_without_redis_the_desk_is_down_and_still_accepts(
    orchestrator: Callable[..., list[Any]], desk: Engine
) -> None:
    status, submitted = orchestrator(
        ["status"], [*question(), "--json"], REDIS_URL="redis://127.0.0.1:1/0"
    )
    assert "redis does not answer" in status.out
    assert desk.store.get(told(submitted)["task_id"]).state is State.QUEUED


def test_the_outbox_is_listed_shown_and_decided(
    engine: Engine, orchestrator: Callable[..., list[Any]]
) -> None:
    asked = Request(type="t", payload={})
    task, _ = engine.store.accept(asked, agent="a", queue="q", decision={}, epoch=0)
    made = [
        engine.outbox.put(task, n, Outgoing("whatsapp", "+59899123456", {"text": "hola"})).id
        for n in range(3)
    ]
    for entry_id, state in zip(made, ("uncertain", "failed", "failed"), strict=True):
        engine.database["outbox"].update_one({"_id": entry_id}, {"$set": {"state": state}})
    listed, shown, again, wrong, all_of_it, odd = orchestrator(
        ["outbox", "list", "--state", "uncertain", "--json"],
        ["outbox", "show", made[0], "--body", "--json"],
        ["outbox", "resolve", "send_again", made[0]],
        ["outbox", "resolve", "drop", made[0]],
        ["outbox", "resolve", "drop", "--all", "--state", "failed", "--json"],
        ["outbox", "resolve", "think", made[0]],
    )
    assert [entry["id"] for entry in json.loads(listed.out)] == [made[0]]
    assert "hola" not in listed.out
    assert json.loads(shown.out)["body"] == {"text": "hola"}
    assert again.out == f"{made[0]} is pending.\n"
    assert (wrong.code, odd.code) == (1, 1)
    assert json.loads(all_of_it.out)["done"] == 2
    assert engine.outbox.get(made[2]).state.value == "dropped"


def test_a_person_finds_who_waits_answers_and_gives_the_conversation_back(
    desk: Engine, orchestrator: Callable[..., list[Any]]
) -> None:
    sessions = desk.sessions
    sessions.open("s1", None, caller="local", channel="web", trusted=True)
    asked = Request("answer", {"message": "¿hay alguien?"}, ordering_key=ordering_key("s1"))
    task, _ = desk.store.accept(asked, agent="a", queue="q", decision={}, epoch=0)
    sessions.take("s1", "ana")
    writer = Writer("conversation_agent", frozenset())
    sessions.commit(sessions.begin("s1", task), writer=writer, reply={"text": ""})
    listed, taken_already, said, shown, given, none = orchestrator(
        ["sessions", "waiting", "--json"],
        ["sessions", "take", "s1", "--by", "bea"],
        ["sessions", "reply", "s1", "Hola, soy Ana.", "--by", "ana"],
        ["sessions", "show", "s1", "--json"],
        ["sessions", "give-back", "s1", "--json"],
        ["sessions", "waiting"],
    )
    assert [each["session_id"] for each in told(listed)] == ["s1"]
    assert "ana" in error_of(taken_already)
    assert said.out == "Said in s1.\n"
    assert [(each["role"], each["text"]) for each in told(shown)["messages"]] == [
        ("customer", "¿hay alguien?"),
        ("person", "Hola, soy Ana."),
    ]
    assert told(given)["owner"] == "bot"
    assert none.out.splitlines()[-1] == "0 waiting."
    assert sessions.get("s1").owner == "bot"


def test_a_person_answers_only_what_is_theirs(
    desk: Engine, orchestrator: Callable[..., list[Any]]
) -> None:
    desk.sessions.open("s1", None, caller="local", channel="web", trusted=True)
    not_taken, unknown, empty, long = orchestrator(
        ["sessions", "reply", "s1", "Hola"],
        ["sessions", "take", "nobody"],
        ["sessions", "reply", "s1", " "],
        ["sessions", "reply", "s1", "x" * 10_001],
    )
    for refused in (not_taken, unknown, empty, long):
        assert error_of(refused)
    assert "10,000" in error_of(long)
