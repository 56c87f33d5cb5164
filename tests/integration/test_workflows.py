"""Workflows and their runs on a real store: what is written, in which order, and once."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel

from orchestrator.advance import RunState
from orchestrator.declarations import Agent
from orchestrator.definition_store import WorkflowNotFound
from orchestrator.definitions import DefinitionInvalid, check
from orchestrator.engine import Engine
from orchestrator.errors import Conflict, IdempotencyKeyReused, Invalid, TaskIsFinal
from orchestrator.tasks import Request, State
from orchestrator.workflows import CallbackRefused, CallbackUsed, RunNotFound

worker = Agent(role="work", name="Worker", capabilities=["working"], slots=2)


class Anything(BaseModel):
    n: int = 0


@worker.handles("do", needs=["working"])
def do(context, asked: Anything):
    return {"n": asked.n + 1}


@worker.handles("undo", needs=["working"])
def undo(context, asked: Anything):
    return {}


@worker.handles("start_workflow")
def start_workflow(context, asked: Anything):
    return {}


@pytest.fixture
def desk(engine: Engine) -> Engine:
    engine.init([worker])
    return engine


def put(engine: Engine, *steps, **more):
    return engine.definitions.put(check({"id": "flow", "steps": list(steps), **more}), "test")


def work(engine: Engine, *, fail: tuple = (), at_most: int = 1_000) -> list[str]:
    """What a worker does: run the queued tasks, one after the other; their ids."""
    done: list[str] = []
    while len(done) < at_most:
        found = engine.database["tasks"].find_one({"state": "queued"})
        if found is None:
            return done
        claim = engine.store.claim(found["_id"], found["fence"], "test")
        assert claim is not None
        done.append(claim.task.id)
        if any(f".{step}" in claim.task.id for step in fail):
            ended = engine.store.fail(claim, {"code": "broken", "detail": "Broken."})
        else:
            ended = engine.store.finish(claim, {"n": claim.task.payload.get("n", 0) + 1})
        engine.coordinator.settle(ended)
    return done


def start(engine: Engine, given=None, **more):
    return engine.workflows.start("flow", given or {}, caller="test", **more)[0]


DO = {"task": "do"}


def test_a_run_goes_from_task_to_task_with_their_results(desk):
    put(
        desk,
        {"id": "a", "task": "do", "payload": {"n": "=input.n"}, "result": "first"},
        {"id": "b", "task": "do", "payload": {"n": "=data.first.n"}, "result": "second"},
        output={"n": "=data.second.n"},
    )
    run = start(desk, {"n": 5})
    assert work(desk) == [f"{run.id}.a:1.1", f"{run.id}.b:1.1"]
    ended = desk.workflows.get(run.id)
    assert ended.run.state is RunState.COMPLETED
    assert ended.run.output == {"n": 7}
    assert ended.finished_at is not None
    assert [step["result"] for step in desk.workflows.steps(ended)] == [{"n": 6}, {"n": 7}]


def test_ended_runs_are_counted(desk):
    put(desk, {"id": "a", **DO})
    for fail in ((), (), ("a",)):
        start(desk)
        work(desk, fail=fail)
    value = desk.metrics.registry.get_sample_value
    ended = {"workflow": "flow", "state": "completed"}
    assert value("orchestrator_runs_ended_total", ended) == 2
    assert value("orchestrator_runs_ended_total", ended | {"state": "failed"}) == 1


def test_a_definition_has_versions_and_a_run_keeps_its_own(desk):
    first = put(desk, {"id": "a", **DO}, {"id": "b", **DO})
    run = start(desk)
    again = put(desk, {"id": "a", **DO}, {"id": "b", **DO})
    second = put(desk, {"id": "a", **DO})
    assert (first.version, again.version, second.version) == (1, 1, 2)
    assert len(work(desk)) == 2
    assert desk.workflows.get(run.id).version == 1
    newer = start(desk)
    assert len(work(desk)) == 1
    assert desk.workflows.get(newer.id).version == 2
    assert [each["version"] for each in desk.definitions.versions("flow")] == [2, 1]


def test_a_key_starts_one_run_however_often_it_comes(desk):
    put(desk, {"id": "a", **DO})
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: start(desk, {"n": 1}, key="k").id, range(16)))
    assert len(set(runs)) == 1
    with pytest.raises(IdempotencyKeyReused):
        start(desk, {"n": 2}, key="k")


def test_what_a_run_needs_has_to_come_with_it(desk):
    put(desk, {"id": "a", **DO}, needs=["session_id"])
    with pytest.raises(Invalid) as refused:
        start(desk)
    assert refused.value.facts["errors"][0]["pointer"] == "/input/session_id"
    with pytest.raises(WorkflowNotFound):
        desk.workflows.start("nope", {}, caller="test")
    assert desk.database["runs"].count_documents({}) == 0


def test_a_task_that_nobody_declares_is_found_when_the_definition_is_checked(desk):
    desk.definitions.check_declared(check({"id": "f", "steps": [{"id": "a", **DO}]}))
    for bad in (
        {"task": "nope"},
        {"task": "do", "capabilities": ["flying"]},
        {"task": "do", "agent": "other_agent"},
        {"task": "do", "compensate": {"task": "nope"}},
    ):
        with pytest.raises(DefinitionInvalid) as refused:
            desk.definitions.check_declared(check({"id": "f", "steps": [{"id": "a", **bad}]}))
        inner = "/compensate" if "compensate" in bad else ""
        assert refused.value.faults[0].pointer == f"/steps/0{inner}/task"


def test_a_step_that_cannot_be_accepted_fails_as_any_other(desk):
    put(desk, {"id": "a", "task": "do", "payload": {"n": "many"}, "on_failure": "continue"})
    run = start(desk)
    ended = desk.workflows.get(run.id)
    assert ended.run.state is RunState.COMPLETED
    assert ended.run.visits[0].code == "invalid_payload"
    # It is nobody's dead letter.
    assert desk.database["tasks"].count_documents({"state": "failed"}) == 0


def test_a_run_is_cancelled_with_what_it_began_and_undone(desk):
    put(
        desk,
        {"id": "a", **DO, "compensate": {"task": "undo"}},
        {
            "id": "p",
            "parallel": {"one": [{"id": "b", **DO}], "two": [{"id": "c", "delay": {"for": "1d"}}]},
        },
    )
    run = start(desk)
    work(desk, at_most=1)
    cancelled = desk.workflows.cancel(run.id)
    assert cancelled.run.state is RunState.COMPENSATING
    assert desk.store.get(f"{run.id}.b-1:1.1").state is State.CANCELLED
    assert work(desk) == [f"{run.id}.a:1u.1"]
    assert desk.workflows.get(run.id).run.state is RunState.CANCELLED
    with pytest.raises(TaskIsFinal):
        desk.workflows.cancel(run.id)


def test_a_paused_run_takes_no_further_step_until_it_is_resumed(desk):
    put(desk, {"id": "a", **DO}, {"id": "b", **DO})
    run = start(desk)
    assert desk.workflows.pause(run.id).run.state is RunState.PAUSED
    assert work(desk) == [f"{run.id}.a:1.1"]
    with pytest.raises(Conflict):
        desk.workflows.pause(run.id)
    desk.workflows.resume(run.id)
    assert work(desk) == [f"{run.id}.b:1.1"]
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED


def test_a_failed_run_goes_on_from_the_step_that_failed(desk):
    put(desk, {"id": "a", **DO}, {"id": "b", **DO}, {"id": "c", **DO})
    run = start(desk)
    work(desk, fail=("b",))
    failed = desk.workflows.get(run.id)
    assert failed.run.state is RunState.FAILED
    assert failed.run.error["step"] == "b"
    desk.workflows.retry(run.id)
    assert work(desk) == [f"{run.id}.b:1.2", f"{run.id}.c:1.1"]
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED
    with pytest.raises(Conflict):
        desk.workflows.retry(run.id)


def test_another_workflow_runs_as_a_step_and_its_failure_is_the_steps(desk):
    inner = {"id": "inner", "needs": ["n"], "output": {"n": "=data.got.n"}}
    step = {"id": "x", "task": "do", "payload": {"n": "=input.n"}, "result": "got"}
    desk.definitions.put(check(inner | {"steps": [step]}), "test")
    outer = {"id": "w", "workflow": "inner", "input": {"n": "=input.n"}, "result": "got"}
    put(desk, outer, output={"n": "=data.got.n"})
    run = start(desk, {"n": 1})
    work(desk)
    ended = desk.workflows.get(run.id)
    assert ended.run.output == {"n": 2}
    assert desk.workflows.get(f"{run.id}.w:1.1").parent == run.id
    other = start(desk, {"n": 2})
    work(desk, fail=("x",))
    assert desk.workflows.get(other.id).run.error["code"] == "broken"
    put(desk, {"id": "w", "workflow": "gone"})
    lost = start(desk)
    assert desk.workflows.get(lost.id).run.error["code"] == "workflow_not_found"


def test_a_callback_takes_the_first_answer_with_its_token(desk):
    put(
        desk,
        {"id": "q", "callback": "approve", "timeout": "2h", "result": "said"},
        {"id": "a", "task": "do", "payload": {"n": "=data.said.n"}},
    )
    run = start(desk)
    [(name, path)] = desk.workflows.callbacks(desk.workflows.get(run.id))
    token = path.partition("token=")[2]
    assert name == "approve"
    for wrong in ("", "x", "q:1~0000", token[::-1], token.replace("q:1", "q:2")):
        with pytest.raises(CallbackRefused):
            desk.workflows.called_back(run.id, "approve", wrong, {})
    with pytest.raises(CallbackRefused):
        desk.workflows.called_back(run.id, "other", token, {})
    desk.workflows.called_back(run.id, "approve", token, {"n": 8})
    with pytest.raises(CallbackUsed):
        desk.workflows.called_back(run.id, "approve", token, {"n": 9})
    work(desk)
    assert desk.store.get(f"{run.id}.a:1.1").payload == {"n": 8}
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED


def test_an_operator_answers_in_place_of_the_outside(desk):
    put(desk, {"id": "q", "callback": "approve"})
    run = start(desk)
    with pytest.raises(CallbackRefused):
        desk.workflows.answered_by_operator(run.id, "other", {})
    desk.workflows.answered_by_operator(run.id, "approve", {"yes": True})
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED
    with pytest.raises(RunNotFound):
        desk.workflows.answered_by_operator("0" * 32, "approve", {})


def test_a_customers_next_message_is_an_answer(desk):
    put(
        desk,
        {"id": "q", "callback": "reply", "session": "input.session_id", "result": "said"},
        {"id": "c", "condition": "data.said.text == 'si'", "then": "a", "else": "end"},
        {"id": "a", **DO},
    )
    run = start(desk, {"session_id": "s1"})
    heard = desk.workflows.message_received
    now = desk.clock.now
    assert heard("s2", "m0", now(), {"text": "si"}) == 0
    # What was said before anybody waited is no answer.
    assert heard("s1", "m0", now() - dt.timedelta(seconds=5), {"text": "no"}) == 0
    assert heard("s1", "m1", now(), {"text": "si"}) == 1
    assert heard("s1", "m2", now(), {"text": "no"}) == 0
    work(desk)
    assert len(desk.workflows.get(run.id).run.visits) == 3


def test_an_answer_that_is_said_twice_is_no_answer_to_the_next_question(desk):
    put(
        desk,
        {"id": "q", "callback": "one", "session": "input.session_id"},
        {"id": "r", "callback": "two", "session": "input.session_id"},
    )
    run = start(desk, {"session_id": "s1"})
    now = desk.clock.now() + dt.timedelta(seconds=1)
    assert desk.workflows.message_received("s1", "m1", now, {"text": "si"}) == 1
    assert desk.workflows.message_received("s1", "m1", now, {"text": "si"}) == 0
    assert desk.workflows.message_received("s1", "m2", now, {"text": "no"}) == 1
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED


ASKING = {
    "id": "q",
    "callback": "reply",
    "session": "input.session_id",
    "takes": True,
    "ask": {"task": "do", "payload": {"n": "=input.n"}},
    "timeout": "3d",
}


def test_who_asks_waits_for_the_answer_before_the_question_is_asked(desk, monkeypatch):
    put(desk, ASKING, {"id": "a", **DO})
    waiting = []
    submit_step = desk.coordinator.submit_step

    def look(*args):
        waiting.append(desk.database["run_waits"].count_documents({}))
        return submit_step(*args)

    monkeypatch.setattr(desk.coordinator, "submit_step", look)
    run = start(desk, {"session_id": "s1", "n": 4})
    assert waiting == [1]
    assert desk.store.get(f"{run.id}.q:1.1").payload == {"n": 4}
    assert desk.workflows.is_taken("s1")
    assert not desk.workflows.is_taken("s2")
    assert len(work(desk)) == 1
    assert desk.workflows.get(run.id).run.visits[0].state.value == "active"
    desk.workflows.message_received("s1", "m1", desk.clock.now(), {"text": "si"})
    assert not desk.workflows.is_taken("s1")
    assert work(desk) == [f"{run.id}.a:1.1"]


def test_a_question_that_nobody_could_ask_fails_and_one_that_is_answered_is_not_asked(desk):
    put(desk, ASKING)
    failing = start(desk, {"session_id": "s1", "n": 4})
    work(desk, fail=("q",))
    assert desk.workflows.get(failing.id).run.error["code"] == "broken"
    early = start(desk, {"session_id": "s2", "n": 4})
    desk.workflows.message_received("s2", "m1", desk.clock.now(), {"text": "si"})
    assert desk.store.get(f"{early.id}.q:1.1").state is State.CANCELLED
    assert desk.workflows.get(early.id).run.state is RunState.COMPLETED


def test_a_process_that_dies_before_it_waits_or_asks_is_made_good(desk, monkeypatch):
    put(desk, ASKING)

    def dies(*args, **more):
        raise SystemExit

    for broken in ("_carry_out", "_submit"):
        session_id = f"s{broken}"
        with monkeypatch.context() as dying:
            dying.setattr(desk.workflows, broken, dies)
            with pytest.raises(SystemExit):
                start(desk, {"session_id": session_id, "n": 1}, key=broken)
        later(desk, seconds=31)
        desk.workflows.advance_due(100)
        assert desk.workflows.is_taken(session_id)
        assert len(work(desk)) == 1


def test_what_is_left_of_a_wait_takes_no_message(desk):
    put(desk, ASKING)
    run = start(desk, {"session_id": "s1", "n": 1})
    [left] = desk.database["run_waits"].find()
    desk.workflows.cancel(run.id)
    desk.database["run_waits"].insert_one(left)
    assert not desk.workflows.is_taken("s1")
    over = start(desk, {"session_id": "s2", "n": 1})
    later(desk, days=4)
    assert not desk.workflows.is_taken("s2")
    desk.workflows.advance_due(100)
    assert desk.workflows.get(over.id).run.error["code"] == "callback_timeout"


def later(engine: Engine, **ahead) -> None:
    """Let the database's clock be ahead."""
    engine.clock.observe(engine.clock.now() + dt.timedelta(**ahead))


def test_time_goes_on_without_a_process_that_waits(desk):
    put(desk, {"id": "d", "delay": {"for": "3d"}}, {"id": "a", **DO})
    run = start(desk)
    assert desk.workflows.advance_due(100) == 0
    later(desk, hours=71)
    desk.workflows.advance_due(100)
    assert work(desk) == []
    later(desk, hours=2)
    desk.workflows.advance_due(100)
    assert len(work(desk)) == 1
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED


def test_a_run_whose_step_was_written_and_never_submitted_goes_on(desk, monkeypatch):
    put(desk, {"id": "a", **DO}, {"id": "b", **DO})

    def dies(*args, **more):
        raise SystemExit

    # The process dies between writing the step into the run and storing its task.
    with monkeypatch.context() as dying:
        dying.setattr(desk.coordinator, "submit_step", dies)
        with pytest.raises(SystemExit):
            start(desk, key="k")
    run = start(desk, key="k")
    assert work(desk) == []
    later(desk, seconds=31)
    desk.workflows.advance_due(100)
    assert len(work(desk)) == 2
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED


def test_a_run_that_nobody_told_of_its_steps_end_goes_on(desk):
    put(desk, {"id": "a", **DO}, {"id": "b", **DO})
    run = start(desk)
    found = desk.database["tasks"].find_one({"state": "queued"})
    claim = desk.store.claim(found["_id"], found["fence"], "test")
    desk.store.finish(claim, {"n": 1})  # and the worker dies before it settles
    later(desk, seconds=31)
    desk.workflows.advance_due(100)
    assert work(desk) == [f"{run.id}.b:1.1"]


def test_an_event_that_came_while_the_process_died_is_heard(desk, monkeypatch):
    put(desk, {"id": "q", "callback": "approve"})
    run = start(desk)

    def dies(*args):
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(desk.workflows, "advance", dies)
        with pytest.raises(SystemExit):
            desk.workflows.answered_by_operator(run.id, "approve", {})
    later(desk, seconds=1)
    desk.workflows.advance_due(100)
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED


def test_many_that_advance_one_run_do_each_step_once(desk):
    put(
        desk,
        {"id": "m", "map": "input.list", "steps": [{"id": "a", **DO}], "limit": 20},
        {"id": "z", **DO},
    )
    run = start(desk, {"list": list(range(20))})
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            found = desk.database["tasks"].find_one({"state": "queued"})
            claim = desk.store.claim(found["_id"], found["fence"], "test")
            ended = desk.store.finish(claim, {})
            list(pool.map(desk.coordinator.settle, [ended] * 4))
    assert work(desk) == [f"{run.id}.z:1.1"]
    assert desk.workflows.get(run.id).run.state is RunState.COMPLETED
    assert desk.database["tasks"].count_documents({}) == 21


def test_an_event_starts_runs_once_for_each_key(desk):
    on = [{"event": "quote_created", "when": "event.total > 1000.0", "input": {"n": "=event.n"}}]
    put(desk, {"id": "a", "task": "do", "payload": {"n": "=input.n"}}, on=on)
    happened = desk.triggers.happened
    assert happened("quote_created", "q1", {"total": 5000.0, "n": 1}) == 1
    happened("quote_created", "q1", {"total": 5000.0, "n": 1})
    assert happened("quote_created", "q2", {"total": 10.0, "n": 2}) == 0
    assert happened("message_received", "q3", {"total": 5000.0, "n": 3}) == 0
    assert len(work(desk)) == 1


def test_a_schedule_is_a_timer_that_starts_runs(desk):
    put(desk, {"id": "a", **DO}, on=[{"cron": "0 9 * * 1-5"}])
    assert desk.timers.names("workflow/flow/") == ["workflow/flow/0"]
    timer = desk.timers.get("workflow/flow/0")
    assert timer.due_at.astimezone(desk.settings.working_time.zone).hour == 9
    assert timer.request.payload == {"workflow": "flow", "input": "{}", "expressions": True}
    put(desk, {"id": "a", **DO})
    assert desk.timers.names("workflow/flow/") == []


# --- Timers ---------------------------------------------------------------------------------


def test_a_timer_fires_once_whoever_picks_it_up(desk):
    due_at = desk.clock.now() + dt.timedelta(days=2)
    desk.timers.put("t1", Request("do", {"n": 1}, caller="test"), due_at=due_at)
    assert desk.timers.fire_due(100) == 0
    later(desk, days=5)  # everything was down when it was due
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: desk.timers.fire_due(100), range(8)))
    assert len(work(desk)) == 1
    fired = desk.timers.get("t1")
    assert fired.fired_at == due_at
    assert fired.due_at is None
    # Whoever puts it again, as it was, does not set it off again.
    desk.timers.put("t1", Request("do", {"n": 1}, caller="test"), due_at=due_at)
    later(desk, days=1)
    assert desk.timers.fire_due(100) == 0


def test_a_timer_that_comes_again_makes_good_what_it_missed_once(desk):
    desk.timers.put("t2", Request("do", {}, caller="test"), cron="0 * * * *")
    later(desk, hours=10)
    assert desk.timers.fire_due(100) == 1
    assert desk.timers.fire_due(100) == 0
    later(desk, hours=1)
    assert desk.timers.fire_due(100) == 1


def test_timers_are_picked_up_in_the_order_in_which_they_are_due(desk):
    now = desk.clock.now()
    for n in (3, 1, 2):
        request = Request("do", {"n": n}, caller="test")
        desk.timers.put(f"t{n}", request, due_at=now + dt.timedelta(minutes=n))
    later(desk, minutes=10)
    desk.timers.fire_due(2)
    tasks = [desk.timers.get(f"t{n}").task_id for n in (1, 2, 3)]
    assert tasks[0] is not None
    assert tasks[1] is not None
    assert tasks[2] is None


def test_a_timer_that_cannot_be_read_keeps_no_other_from_firing(desk):
    due_at = desk.clock.now() + dt.timedelta(seconds=1)
    for name in ("t5", "t6"):
        desk.timers.put(name, Request("do", {}, caller="test"), due_at=due_at)
    desk.database["timers"].update_one({"_id": "t5"}, {"$set": {"request.priority": "urgent"}})
    later(desk, seconds=2)
    assert desk.timers.fire_due(100) == 1
    assert desk.timers.get("t6").task_id is not None


def test_a_timer_whose_task_nobody_declares_waits_for_an_agent(desk):
    due_at = desk.clock.now() + dt.timedelta(seconds=1)
    desk.timers.put("t4", Request("unheard_of", {}, caller="test"), due_at=due_at)
    later(desk, seconds=2)
    assert desk.timers.fire_due(100) == 0
    assert desk.timers.get("t4").due_at > due_at
    assert desk.timers.get("t4").task_id is None


def test_a_timer_is_changed_and_removed(desk):
    due_at = desk.clock.now() + dt.timedelta(hours=1)
    desk.timers.put("t5", Request("do", {}, caller="test"), due_at=due_at)
    moved = desk.timers.put(
        "t5", Request("do", {}, caller="test"), due_at=due_at + dt.timedelta(hours=1)
    )
    assert moved.due_at == due_at + dt.timedelta(hours=1)
    assert desk.timers.remove("t5")
    assert not desk.timers.remove("t5")


# --- Folders of definitions -----------------------------------------------------------------

MINE = "id: mine\nsteps:\n  - id: a\n    task: do\n"


def of_folder(engine: Engine, folder) -> Engine:
    """The same desk, with a folder of the user's."""
    engine.settings = engine.settings.model_copy(update={"workflows_dir": folder})
    return engine


def test_a_users_folder_is_kept_at_each_start_and_what_was_put_since_stands(desk, tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "notes.txt").write_text("not a workflow")
    of_folder(desk, tmp_path)
    assert desk.init([worker]) == []
    assert desk.init([worker]) == []
    assert desk.definitions.get("mine").version == 1
    # An operator's change is not taken back by the next start,
    put(desk, {"id": "b", **DO})
    changed = check({"id": "mine", "steps": [{"id": "b", **DO}]})
    assert desk.definitions.put(changed, "operator").version == 2
    desk.init([worker])
    assert desk.definitions.get("mine").version == 2
    # and a change of the file is the newest.
    (tmp_path / "mine.yaml").write_text(MINE + "  - id: c\n    task: do\n")
    desk.init([worker])
    assert desk.definitions.get("mine").version == 3


def test_a_folder_with_wrong_definitions_keeps_none_of_them_and_names_each_line(desk, tmp_path):
    (tmp_path / "a.yaml").write_text(MINE)
    (tmp_path / "b.yaml").write_text(
        "id: b\nsteps:\n  - id: x\n    delay: {for: 1d}\n    next: y\n"
    )
    (tmp_path / "c.yml").write_text("id: c\nsteps:\n  - id: x: y\n")
    (tmp_path / "d.yaml").write_text(MINE)
    of_folder(desk, tmp_path)
    with pytest.raises(DefinitionInvalid) as refused:
        desk.init([worker])
    said = [line.split(": ")[0] for line in refused.value.lines]
    assert said == [f"{tmp_path}/b.yaml:3", f"{tmp_path}/c.yml:3", f"{tmp_path}/d.yaml:1"]
    assert desk.database["workflows"].count_documents({}) == 0


def test_what_nobody_declares_is_said_and_kept_for_the_agent_that_comes(desk, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        MINE
        + "  - id: b\n    task: do\n    capabilities: [flying]\n  - id: c\n    workflow: other\n"
    )
    (tmp_path / "other.yaml").write_text(MINE.replace("mine", "other"))
    of_folder(desk, tmp_path)
    [said] = desk.init([worker])
    assert said.startswith(f"{tmp_path}/mine.yaml:6: /steps/1/task: no agent declares")
    assert desk.definitions.get("mine").version == 1


# --- Runs that last -------------------------------------------------------------------------


def test_what_steps_resulted_in_is_kept_for_as_long_as_their_run_lives(desk, advance):
    inner = {"id": "inner", "steps": [{"id": "x", **DO}], "output": {"n": "=7"}}
    desk.definitions.put(check(inner), "test")
    put(
        desk,
        {"id": "a", "task": "do", "payload": {"n": 1}, "result": "first"},
        {"id": "w", "workflow": "inner", "result": "second"},
        {"id": "d", "delay": {"for": "90d"}},
        {"id": "b", "task": "do", "payload": {"n": "=data.first.n + data.second.n"}},
    )
    tasks, runs = desk.database["tasks"], desk.database["runs"]
    run = start(desk)
    paused = start(desk)
    work(desk)
    desk.workflows.pause(paused.id)
    rescuer = desk.rescuer("me", eager=True)
    rescuer.tick()
    kept = 0
    for _ in range(91):
        advance(86_400)
        kept += rescuer.run_once().kept
        # What MongoDB removes by itself.
        for collection in (tasks, runs, desk.database["workflows"]):
            collection.delete_many({"expire_at": {"$lt": desk.clock.now()}})
    # Twelve looks at each in 91 days, and not one for each pass.
    assert 22 <= kept <= 26
    desk.workflows.resume(paused.id)
    work(desk)
    advance(91 * 86_400)
    for each in (run, paused):
        if each is paused:
            desk.workflows.keep_results(10)
            desk.workflows.advance_due(100)
            work(desk)
        ended = desk.workflows.get(each.id)
        assert ended.run.state is RunState.COMPLETED, ended.run.error
        assert desk.store.get(f"{each.id}.b:1.1").payload == {"n": 9}
        assert "kept_at" not in runs.find_one({"_id": each.id})


def test_a_run_that_is_retried_is_looked_after_again_at_once(desk):
    put(desk, {"id": "a", **DO}, {"id": "b", **DO})
    run = start(desk)
    work(desk, fail=("b",))
    assert desk.workflows.keep_results(10) == 0
    a_month = desk.clock.now() + dt.timedelta(days=29)
    later(desk, days=20)
    desk.workflows.retry(run.id)
    assert desk.workflows.keep_results(10) == 1
    kept = desk.database["tasks"].find_one({"_id": f"{run.id}.a:1.1"})
    assert kept["expire_at"].replace(tzinfo=dt.UTC) > a_month + dt.timedelta(days=15)
