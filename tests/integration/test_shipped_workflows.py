"""The workflows that ship, through the agents' own handlers, as workers run them."""

from decimal import Decimal
from pathlib import Path

import pytest

from agents.analytics.agent import agent as analytics
from agents.conversation.agent import agent as conversation
from agents.data_sync.agent import agent as data_sync
from agents.followup.agent import agent as followup
from agents.orchestrator.agent import agent as orchestrating
from agents.quote.agent import agent as quoting
from agents.stores import stores_of
from orchestrator.advance import RunState
from orchestrator.context import ordering_key
from orchestrator.engine import Engine
from orchestrator.tasks import Request
from orchestrator.worker import TaskContext

PHONE = "+59899123456"


@pytest.fixture
def import_dir(engine: Engine, tmp_path: Path) -> Path:
    engine.settings = engine.settings.model_copy(update={"import_dir": tmp_path})
    return tmp_path


@pytest.fixture
def work(workers, import_dir):
    return workers(conversation, quoting, data_sync, followup, analytics, orchestrating).work


@pytest.fixture
def desk(engine: Engine, work) -> Engine:
    return engine


def session(desk: Engine, session_id="s1", channel="web", phone=None) -> str:
    return desk.sessions.open(
        session_id, phone, caller="local", channel=channel, trusted=phone is not None
    ).id


def say(desk: Engine, text: str, session_id="s1") -> str:
    payload = {"session_id": session_id, "message": text}
    key = ordering_key(session_id)
    return desk.coordinator.submit(Request("process_message", payload, ordering_key=key))[0].id


def told(desk: Engine, session_id="s1") -> list[str]:
    messages = desk.sessions.messages(desk.sessions.get(session_id))
    return [message.text for message in messages if message.role == "assistant"]


def start(desk: Engine, workflow: str, **given) -> str:
    return desk.workflows.start(workflow, {"session_id": "s1"} | given, caller="operator")[0].id


def run_of(desk: Engine, run_id: str):
    return desk.workflows.get(run_id).run


WHOLE = {"product": "isodec", "thickness_mm": 100, "length_m": 10, "width_m": 5}


def test_what_is_complete_is_quoted_and_told_at_once(desk, work):
    session(desk)
    run_id = start(desk, "quote_workflow", items=[WHOLE])
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, run.error
    [text] = told(desk)
    assert run.output["code"] in text
    assert run.output["told"] is True
    quote = stores_of(desk).quotes.get(run.output["quote_id"])
    assert quote.state.value == "sent"
    # The conversation goes on from it.
    say(desk, "dale, la acepto")
    work()
    assert stores_of(desk).quotes.get(quote.id).state.value == "accepted"


@pytest.mark.parametrize("workflow", ["quote_workflow", "quote_approval"])
def test_a_run_for_a_conversation_that_is_not_there_fails_and_says_so(desk, work, workflow):
    run_id = start(desk, workflow, items=[WHOLE])
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.FAILED
    assert run.error["code"] == "session_not_found"
    assert desk.database["quotes"].find_one() is None


@pytest.mark.parametrize(
    ("language", "items", "answers", "asked"),
    [
        ("es", [{"product": "Isodec"}], ["de 100", "10 x 5"], "espesor"),
        ("en", [{"product": "isodec"}], ["100 mm", "10 x 5 m"], "thickness"),
        ("es", [{"thickness_mm": 100}], ["isodec", "son 50 m2"], "producto"),
        ("es", [{**WHOLE, "thickness_mm": 77}], ["de 100 entonces"], "77"),
        ("es", [], ["isodec de 100, 10 x 5"], "producto"),
    ],
)
def test_what_is_missing_is_asked_for_until_the_customer_has_said_it(
    desk, work, language, items, answers, asked
):
    session(desk)
    say(desk, {"es": "hola", "en": "hello"}[language])
    work()
    run_id = start(desk, "quote_workflow", items=items)
    work()
    assert asked in told(desk)[-1]
    for answer in answers:
        assert run_of(desk, run_id).state is RunState.RUNNING
        say(desk, answer)
        work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, (run.error, told(desk))
    assert run.output["code"] in told(desk)[-1]
    assert {"es": "Total: $", "en": "Total: UYU"}[language] in told(desk)[-1]
    quote = stores_of(desk).quotes.get(run.output["quote_id"])
    assert (quote.language, len(quote.items)) == (language, 1)
    assert desk.database["quotes"].count_documents({}) == 1
    # Each answer was heard once, and answered by the run.
    assert sum("lo reviso" in text or "look at it" in text for text in told(desk)) == len(answers)


def test_several_messages_at_once_are_one_answer(desk, work):
    session(desk)
    run_id = start(desk, "quote_workflow", items=[{}])
    work()
    tasks = [say(desk, text) for text in ("isodec", "de 100", "10 x 5")]
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, told(desk)
    turns = {desk.store.get(task).result["turn_id"] for task in tasks}
    assert turns == {tasks[0]}


def test_who_wants_a_person_gets_one_and_the_run_ends(desk, work):
    session(desk)
    run_id = start(desk, "quote_workflow", items=[{"product": "isodec"}])
    work()
    say(desk, "quiero hablar con una persona")
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED
    assert run.output == {"quote_id": None, "code": None, "told": False}
    assert desk.sessions.get("s1").owner == "human"


def test_a_person_who_takes_over_is_not_spoken_over(desk, work):
    session(desk)
    run_id = start(desk, "quote_workflow", items=[{"product": "isodec"}])
    work()
    desk.people.take("s1", "ana")
    before = told(desk)
    say(desk, "de 100, 10 x 5")
    work()
    assert run_of(desk, run_id).state is RunState.COMPLETED
    assert told(desk) == before
    other = start(desk, "quote_workflow", items=[WHOLE])
    work()
    assert run_of(desk, other).output["quote_id"] is None


def test_an_answer_that_never_comes_ends_the_run_and_a_late_one_is_the_bots(desk, work, advance):
    session(desk)
    run_id = start(desk, "quote_workflow", items=[{"product": "isodec"}])
    work()
    advance(3 * 86_400 + 60)
    desk.workflows.advance_due(10)
    assert run_of(desk, run_id).state is RunState.COMPLETED
    say(desk, "de 100, y son 10 x 5")
    work()
    assert "Total" in told(desk)[-1]


def test_a_cancelled_run_leaves_the_conversation_to_the_bot(desk, work):
    session(desk)
    run_id = start(desk, "quote_workflow", items=[{"product": "isodec"}])
    work()
    desk.workflows.cancel(run_id)
    say(desk, "de 100, y son 10 x 5")
    work()
    assert "Total" in told(desk)[-1]


def test_questions_and_the_quote_leave_by_the_customers_channel(desk, work):
    session(desk, channel="whatsapp", phone=PHONE)
    start(desk, "quote_workflow", items=[{"product": "isodec"}])
    work()
    say(desk, "de 100, y son 10 x 5")
    work()
    sent = list(desk.database["outbox"].find({"channel": "whatsapp"}).sort("_id", 1))
    assert {entry["recipient"] for entry in sent} == {PHONE}
    assert {entry["body"]["text"] for entry in sent} == set(told(desk))
    assert len(sent) == 3


# --- Approval --------------------------------------------------------------------------------


def token_of(desk: Engine, run_id: str) -> str:
    [(name, path)] = desk.workflows.callbacks(desk.workflows.get(run_id))
    assert name == "approval"
    return path.partition("token=")[2]


def test_a_small_quote_needs_nobody(desk, work):
    session(desk)
    run_id = start(desk, "quote_approval", items=[WHOLE], limit=10_000)
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert run.output["approved"] is None
    assert run.output["code"] in told(desk)[-1]


def test_a_large_quote_waits_for_a_persons_yes_while_the_catalogue_is_refreshed(
    desk, work, import_dir
):
    stores = stores_of(desk)
    row = "id,base_price_per_m2\nisodec,{}\n"
    now = stores.catalogues.current().product("isodec").base_price_per_m2
    (import_dir / "prices.csv").write_text(row.format(now * Decimal("1.1")))
    session(desk)
    given = {"items": [WHOLE], "limit": 1000, "catalogue_file": "prices.csv"}
    run_id = start(desk, "quote_approval", **given)
    work()
    # The catalogue is in force already, and nothing was told but that somebody looks at it.
    assert run_of(desk, run_id).state is RunState.RUNNING
    assert stores.catalogues.current().product("isodec").base_price_per_m2 == now * Decimal("1.1")
    assert len(told(desk)) == 1
    assert "persona" in told(desk)[0]
    token = token_of(desk, run_id)
    desk.workflows.called_back(run_id, "approval", token, {"approved": True})
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert run.output["approved"] is True
    first, second = desk.database["quotes"].find().sort("_id", 1)
    assert (second["supersedes"], second["_id"]) == (first["_id"], run.output["quote_id"])
    assert second["total"].to_decimal() == first["total"].to_decimal() * Decimal("1.1")
    assert second["code"] in told(desk)[-1]
    assert second["state"] == "sent"


@pytest.mark.parametrize("answer", [{"approved": False}, {}, None])
def test_a_quote_that_nobody_approves_is_withdrawn_and_a_person_takes_over(
    desk, work, advance, answer
):
    session(desk)
    run_id = start(desk, "quote_approval", items=[WHOLE], limit=1000)
    work()
    if answer is None:
        advance(2 * 86_400 + 60)
        desk.workflows.advance_due(10)
    else:
        desk.workflows.called_back(run_id, "approval", token_of(desk, run_id), answer)
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, run.error
    [quote] = desk.database["quotes"].find()
    assert quote["state"] == "rejected"
    assert not any(quote["code"] in text for text in told(desk))
    assert desk.sessions.get("s1").owner == "human"
    assert desk.sessions.get("s1").waiting_since is not None


def test_a_catalogue_that_cannot_be_read_leaves_the_quote_as_it_is(desk, work, import_dir):
    session(desk)
    given = {"items": [WHOLE], "limit": 1000, "catalogue_file": "gone.csv"}
    run_id = start(desk, "quote_approval", **given)
    work()
    desk.workflows.called_back(run_id, "approval", token_of(desk, run_id), {"approved": True})
    work()
    run = run_of(desk, run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert desk.database["quotes"].count_documents({}) == 1
    assert run.output["told"] is True


def test_what_a_run_says_is_said_once_however_often_its_tasks_run(desk, work):
    """Each task of a run is run again from the start, as by a worker that was given up for dead."""
    session(desk)
    start(desk, "quote_workflow", items=[{"product": "isodec"}])
    seen: set[str] = set()
    handlers = conversation.task_types
    for text in ("de 100", "10 x 5", None):
        for task_id in work():
            task = desk.store.get(task_id)
            if task.type in ("ask_for_details", "confirm_quote", "read_details"):
                kind = handlers[task.type]
                asked = kind.payload.model_validate(task.payload)
                before = told(desk)
                kind.handler(TaskContext(task, desk, [], {}), asked)
                assert told(desk) == before
                seen.add(task.type)
        if text is not None:
            say(desk, text)
    assert {"ask_for_details", "confirm_quote", "read_details"} <= seen
