"""What a run does next: from any definition, in any order of events, once and to the end."""

import datetime as dt
import random
from dataclasses import dataclass, field, replace
from itertools import count

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.advance import (
    Await,
    CallOut,
    Facts,
    Outcome,
    Run,
    RunState,
    StartRun,
    Stop,
    Submit,
    Visit,
    VisitState,
    advance,
    retried,
)
from orchestrator.definitions import check
from orchestrator.errors import Conflict

BEGAN = dt.datetime(2026, 3, 2, 12, 0, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


@dataclass
class World:
    """Where a run's commands go: tasks that end when, and as, it is told."""

    fails: dict = field(default_factory=dict)  # step -> how many of its tries fail
    results: dict = field(default_factory=dict)  # step -> result
    now: dt.datetime = BEGAN
    tasks: dict = field(default_factory=dict)  # id -> command
    outcomes: dict = field(default_factory=dict)
    events: dict = field(default_factory=dict)
    expected: set = field(default_factory=set)
    waiting: set = field(default_factory=set)

    def facts(self) -> Facts:
        missing = frozenset(self.expected - self.tasks.keys())
        waiting = frozenset(self.waiting)
        return Facts(self.now, dict(self.outcomes), missing, dict(self.events), waiting)

    def carry_out(self, commands, lose=None) -> None:
        for command in commands:
            if isinstance(command, Await):
                if lose is None or not lose.random() < 0.3:
                    self.waiting.add(command.visit.key)
                continue
            if isinstance(command, Stop):
                self.tasks.setdefault(command.id, command)
                self.outcomes.setdefault(command.id, Outcome(False, code="cancelled"))
                continue
            name = command.run_id if isinstance(command, StartRun) else command.task_id
            self.expected.add(name)
            if lose is None or not lose.random() < 0.3:
                self.tasks.setdefault(name, command)

    def end(self, task_id) -> None:
        command = self.tasks[task_id]
        if isinstance(command, Submit):
            failing = self.fails.get(command.visit.step, 0)
            if command.visit.tries <= failing and not command.visit.undo:
                self.outcomes[task_id] = Outcome(False, code="broken")
                return
            result = self.results.get(command.visit.step, {"of": task_id})
            self.outcomes[task_id] = Outcome(True, result)
        else:
            self.outcomes[task_id] = Outcome(True, {"of": task_id})

    def ready(self) -> list:
        return [each for each in self.tasks if each not in self.outcomes]


def start(given=None) -> Run:
    return Run("r1", RunState.RUNNING, given or {})


def play(definition, world, rng=None, given=None, steps=5_000) -> Run:
    """A run to its end: the tasks in the order in which they were submitted, or with `rng` in
    any order, with commands lost, runs looked at twice, and time that passes anyhow."""
    run = start(given)
    for _ in range(steps):
        run, commands = advance(run, definition, world.facts())
        if rng is not None and rng.random() < 0.3:
            # A second look at the same moment: what it says is said already.
            again, more = advance(run, definition, world.facts())
            assert again == replace(run, due_at=again.due_at)
            commands = [*commands, *more]
        world.carry_out(commands, rng)
        if run.state.final:
            return run
        waiting = [v for v in run.visits if v.state.open and v.key not in world.events]
        callbacks = [
            v for v in waiting if definition.step(v.step).kind == "callback" and not v.undo
        ]
        ready = world.ready()
        if rng is not None:
            rng.shuffle(ready)
            rng.shuffle(callbacks)
            ready = ready[: rng.randint(0, 2)]
            callbacks = callbacks[: rng.randint(0, 1)]
        for task_id in ready if rng is not None else ready[:1]:
            world.end(task_id)
        if rng is not None or not ready:
            for visit in callbacks:
                world.events[visit.key] = {"said": visit.step}
        if (rng is not None and rng.random() < 0.5) or not (ready or callbacks):
            world.now = max(world.now, run.due_at) + MINUTE
    raise AssertionError(f"no end after {steps} looks: {run}")


# --- Random definitions ----------------------------------------------------------------------


@st.composite
def definitions(draw, decided=True):
    """Any definition; with `decided`, one whose end does not hang on the order of events."""
    names = count()

    def chain(depth: int) -> list:
        steps = [step(depth) for _ in range(draw(st.integers(1, 3)))]
        ids = [each["id"] for each in steps]
        for at, each in enumerate(steps):
            if "condition" in each:
                later = [*ids[at + 1 :], "end"]
                # Every later step stays reachable: one way goes to the next one.
                each["then"] = draw(st.sampled_from(later))
        return steps

    def step(depth: int) -> dict:
        name = f"s{next(names)}"
        kinds = ["task", "task", "condition", "delay", "callback"]
        if depth < 2:
            kinds += ["parallel", "map"]
        kind = draw(st.sampled_from(kinds))
        made: dict = {"id": name}
        join = "all" if decided else draw(st.sampled_from(["all", "any", 2]))
        losers = draw(st.sampled_from(["cancel", "finish"]))
        if kind == "task":
            made |= {"task": "work", "payload": {"n": "=size(input.list)"}, "result": name}
            made["retries"] = {"times": draw(st.integers(1, 2)), "backoff": "10s"}
            policies = ["continue"] if decided else ["fail", "continue", "compensate"]
            made["on_failure"] = draw(st.sampled_from(policies))
            if draw(st.booleans()):
                made["compensate"] = {"task": "undo"}
        elif kind == "condition":
            made["condition"] = f"size(input.list) > {draw(st.integers(0, 3))}"
        elif kind == "delay":
            made["delay"] = {"for": draw(st.sampled_from(["1s", "2h", "3d"]))}
        elif kind == "callback":
            made["callback"] = "answer"
            if draw(st.booleans()):
                made |= {"session": "'s1'", "takes": draw(st.booleans())}
        elif kind == "parallel":
            branches = draw(st.integers(1, 3))
            made["parallel"] = {f"b{n}": chain(depth + 1) for n in range(branches)}
            made |= {"join": join, "losers": losers}
        else:
            made |= {"map": "input.list", "steps": chain(depth + 1), "limit": 2}
            made |= {"join": join, "losers": losers, "result": name}
        return made

    steps = chain(0)
    total = next(names)
    fails = {f"s{n}": draw(st.integers(0, 3)) for n in range(total)}
    entries = draw(st.integers(0, 3))
    return check({"id": "any", "steps": steps}), fails, {"list": list(range(entries))}


def summary(run: Run):
    """What a run came to, times aside."""
    return (
        run.state,
        run.error,
        {
            visit.key: (visit.state, visit.tries, visit.way, visit.code, frozenset(visit.ended))
            for visit in run.visits
        },
    )


@given(definitions(), st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_any_order_ends_as_a_straight_run_does(drawn, seed):
    definition, fails, given_ = drawn
    straight_world, world = World(fails), World(fails)
    straight = play(definition, straight_world, given=given_)
    run = play(definition, world, random.Random(seed), given=given_)
    assert summary(run) == summary(straight)
    assert world.tasks.keys() == straight_world.tasks.keys()


@given(definitions(decided=False), st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_every_run_ends_with_nothing_open(drawn, seed):
    definition, fails, given_ = drawn
    world = World(fails)
    run = play(definition, world, random.Random(seed), given=given_)
    assert run.state.final
    assert not any(visit.state.open for visit in run.visits)
    assert all(task_id in world.outcomes for task_id in world.tasks)


@given(definitions(decided=False), st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_a_run_that_failed_comes_to_its_end_when_it_is_retried(drawn, seed):
    definition, fails, given_ = drawn
    world = World(fails)
    run = play(definition, world, random.Random(seed), given=given_)
    if run.state is not RunState.FAILED or any(visit.undo for visit in run.visits):
        return
    done = {task for task, outcome in world.outcomes.items() if outcome.completed}
    world.fails = {}
    run = retried(run, definition)
    for _ in range(500):
        for visit in run.visits:
            kind = definition.step(visit.step).kind
            if visit.state is VisitState.ACTIVE and kind == "task":
                world.expected.add(visit.task_id("r1"))
            elif visit.state.open and kind == "callback":
                world.events[visit.key] = {}
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        if run.state.final:
            break
        for task_id in world.ready():
            world.end(task_id)
        world.now = max(world.now, run.due_at) + MINUTE
    assert run.state is RunState.COMPLETED, run.error
    assert not any(visit.state.open for visit in run.visits)
    assert all(world.outcomes[task].completed for task in done)


@given(definitions(decided=False), st.integers(0, 2**32), st.integers(0, 30))
@settings(max_examples=80, deadline=None)
def test_a_run_that_is_cancelled_ends_and_undoes_what_completed(drawn, seed, when):
    definition, fails, given_ = drawn
    world, rng = World(fails), random.Random(seed)
    run = start(given_)
    for _ in range(when):
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands, rng)
        for task_id in world.ready()[:1]:
            world.end(task_id)
        world.now += MINUTE
    if run.state.final or run.error is not None:
        return
    run = replace(run, cancel=True)
    for _ in range(500):
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        if run.state.final:
            break
        for task_id in world.ready():
            world.end(task_id)
    assert run.state is RunState.CANCELLED
    undone = {visit.key for visit in run.visits if visit.undo}
    for visit in run.visits:
        step = definition.step(visit.step)
        if visit.state is VisitState.COMPLETED and not visit.undo and step.kind == "task":
            assert (f"{visit.key}u" in undone) == (step.compensate is not None)


@given(definitions(decided=False))
@settings(deadline=None)
def test_a_run_is_stored_and_read_as_it_was(drawn):
    definition, fails, given_ = drawn
    run = play(definition, World(fails), given=given_)
    assert tuple(Visit.from_document(visit.to_document()) for visit in run.visits) == run.visits


# --- One by one ------------------------------------------------------------------------------


def flow(*steps, **more):
    return check({"id": "flow", "steps": list(steps), **more})


def ran(run: Run) -> list:
    return [visit.step for visit in run.visits if not visit.undo]


def test_a_chain_hands_on_what_its_tasks_result_in():
    definition = flow(
        {"id": "a", "task": "t", "payload": {"x": "=input.x"}, "result": "first"},
        {"id": "b", "task": "t", "payload": {"y": "=data.first.n + 1", "z": ["=steps.a.state"]}},
        output={"n": "=data.first.n"},
    )
    world = World(results={"a": {"n": 41}})
    run = play(definition, world, given={"x": "hola"})
    first, second = world.tasks.values()
    assert first.payload == {"x": "hola"}
    assert second.payload == {"y": 42, "z": ["completed"]}
    assert run.output == {"n": 41}
    assert first.task_id == "r1.a:1.1"


@pytest.mark.parametrize(("x", "steps"), [(5, ["c", "big"]), (1, ["c", "small"])])
def test_a_condition_goes_one_way(x, steps):
    definition = flow(
        {"id": "c", "condition": "input.x > 3", "then": "big", "else": "small"},
        {"id": "big", "task": "t", "next": "end"},
        {"id": "small", "task": "t"},
    )
    assert ran(play(definition, World(), given={"x": x})) == steps


@pytest.mark.parametrize(
    ("missing", "state"), [("false", RunState.COMPLETED), ("error", RunState.FAILED)]
)
def test_a_missing_name_is_false_or_an_error(missing, state):
    definition = flow({"id": "c", "condition": "input.nope", "then": "end"}, missing=missing)
    run = play(definition, World())
    assert run.state is state
    if state is RunState.FAILED:
        assert run.error["code"] == "bad_expression"
        assert run.error["step"] == "c"


def test_a_switch_takes_the_first_case_that_is_true():
    definition = flow(
        {
            "id": "s",
            "switch": [
                {"when": "input.x > 10", "then": "a"},
                {"when": "input.x > 5", "then": "b"},
            ],
            "default": "c",
        },
        {"id": "a", "task": "t", "next": "end"},
        {"id": "b", "task": "t", "next": "end"},
        {"id": "c", "task": "t"},
    )
    assert ran(play(definition, World(), given={"x": 7})) == ["s", "b"]
    assert ran(play(definition, World(), given={"x": 1})) == ["s", "c"]


def test_a_step_is_tried_again_after_growing_pauses():
    retries = {"times": 3, "backoff": "10s", "factor": 2}
    definition = flow({"id": "a", "task": "t", "retries": retries})
    world = World(fails={"a": 2})
    run = start()
    pauses = []
    while not run.state.final:
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        for task_id in world.ready():
            world.end(task_id)
        if run.visits[0].state is VisitState.PAUSING:
            pauses.append((run.due_at - world.now).total_seconds())
            world.now = run.due_at
    assert pauses == [10, 20]
    assert run.state is RunState.COMPLETED
    assert list(world.tasks) == ["r1.a:1.1", "r1.a:1.2", "r1.a:1.3"]


@pytest.mark.parametrize(
    ("policy", "state", "steps"),
    [
        ("fail", RunState.FAILED, ["a", "b"]),
        ("continue", RunState.COMPLETED, ["a", "b", "c", "d"]),
        ({"goto": "d"}, RunState.COMPLETED, ["a", "b", "d"]),
        ("compensate", RunState.FAILED, ["a", "b"]),
    ],
)
def test_what_becomes_of_a_run_whose_step_fails(policy, state, steps):
    definition = flow(
        {
            "id": "a",
            "task": "t",
            "compensate": {"task": "undo", "payload": {"of": "=steps.a.result.of"}},
        },
        {"id": "b", "task": "t", "on_failure": policy},
        {"id": "c", "task": "t"},
        {"id": "d", "task": "t"},
    )
    world = World(fails={"b": 9})
    run = play(definition, world)
    assert run.state is state
    assert ran(run) == steps
    undone = [each for each in world.tasks.values() if isinstance(each, Submit) and each.visit.undo]
    assert len(undone) == (policy == "compensate")
    if undone:
        assert undone[0].payload == {"of": "r1.a:1.1"}


def test_what_completed_is_undone_last_first_and_failing_that_is_said():
    undo = {"task": "undo"}
    definition = flow(
        {"id": "a", "task": "t", "compensate": undo},
        {"id": "b", "task": "t", "compensate": undo},
        {"id": "c", "task": "t", "on_failure": "compensate"},
    )
    world = World(fails={"c": 9})
    run = play(definition, world)
    undone = [visit.step for visit in run.visits if visit.undo]
    assert undone == ["b", "a"]
    assert run.error["code"] == "broken"


def branches(join, losers="cancel", **more):
    return flow(
        {
            "id": "p",
            "parallel": {
                "one": [{"id": "a", "task": "t"}],
                "two": [{"id": "b", "task": "t"}, {"id": "b2", "task": "t"}],
                "three": [{"id": "c", "delay": {"for": "9h"}}],
            },
            "join": join,
            "losers": losers,
            **more,
        },
        {"id": "z", "task": "t"},
    )


def test_the_first_of_any_is_enough_and_the_others_are_given_up():
    world = World()
    run = play(branches("any"), world)
    states = {visit.step: visit.state.value for visit in run.visits}
    assert states == {
        "p": "completed", "a": "completed", "b": "cancelled", "c": "cancelled", "z": "completed",
    }  # fmt: skip


def test_losers_may_finish_behind_it():
    run = play(branches("any", "finish"), World())
    assert {visit.state for visit in run.visits} == {VisitState.COMPLETED}
    order = ran(run)
    assert order.index("z") < order.index("b2")


def test_a_parallel_fails_as_soon_as_too_few_are_left():
    world = World(fails={"b": 9})
    run = play(branches("all"), world)
    assert run.state is RunState.FAILED
    assert run.error["step"] == "p"
    assert run.error["code"] == "branch_failed"
    assert play(branches(2), World(fails={"b": 9})).state is RunState.COMPLETED


def test_a_map_runs_a_few_at_once_and_keeps_the_order_of_its_list():
    definition = flow(
        {
            "id": "m",
            "map": "input.list",
            "limit": 2,
            "result": "all",
            "steps": [{"id": "a", "task": "t", "payload": {"x": "=item.n * 10", "i": "=index"}}],
        },
        output={"all": "=data.all"},
    )
    world = World()
    entries = [{"n": n} for n in range(5)]
    run, most = start({"list": entries}), 0
    while not run.state.final:
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        ready = world.ready()
        most = max(most, len(ready))
        if ready:
            world.end(ready[-1])
    assert most == 2
    payloads = sorted((c.payload["i"], c.payload["x"]) for c in world.tasks.values())
    assert payloads == [(n, n * 10) for n in range(5)]
    assert run.output["all"] == [{"of": f"r1.a-1-{n}:1.1"} for n in range(5)]


def test_a_circle_comes_to_a_step_again_as_another_visit():
    definition = flow(
        {"id": "ask", "task": "t", "result": "seen"},
        {"id": "enough", "condition": "steps.ask.visits >= 3", "then": "end", "else": "wait"},
        {"id": "wait", "delay": {"for": "1h"}, "next": "ask"},
    )
    world = World()
    run = play(definition, world)
    assert list(world.tasks) == ["r1.ask:1.1", "r1.ask:2.1", "r1.ask:3.1"]
    assert run.state is RunState.COMPLETED


def callback(**more):
    return flow(
        {"id": "q", "callback": "answer", "result": "answer", **more},
        {"id": "a", "task": "t", "payload": {"said": "=data.answer.said"}, "next": "end"},
        {"id": "late", "task": "t"},
    )


def test_a_callback_waits_for_its_event_or_its_timeout():
    definition = callback(timeout="2h", on_timeout="late")
    world = World()
    run, _ = advance(start(), definition, world.facts())
    world.now += MINUTE
    assert advance(run, definition, world.facts())[0].visits == run.visits
    answered = replace_events(world, {"q:1": {"said": "si"}})
    _, commands = advance(run, definition, answered)
    assert commands[0].payload == {"said": "si"}
    world.now += dt.timedelta(hours=3)
    later, commands = advance(run, definition, world.facts())
    assert ran(later) == ["q", "late"]
    # What came is not lost for having come at the last moment.
    assert ran(advance(run, definition, replace_events(world, {"q:1": {"said": "si"}}))[0]) == [
        "q",
        "a",
    ]


def replace_events(world, events):
    return replace(world.facts(), events=events)


def test_a_callback_without_an_answer_fails_where_nothing_else_is_said():
    definition = check({"id": "f", "steps": [{"id": "q", "callback": "x", "timeout": "1h"}]})
    world = World()
    run, _ = advance(start(), definition, world.facts())
    world.now += dt.timedelta(hours=2)
    assert advance(run, definition, world.facts())[0].error["code"] == "callback_timeout"


def test_a_webhook_goes_out_once_for_each_visit():
    call = {"url": "https://example.com/hook", "body": {"n": "=input.n"}}
    definition = check({"id": "f", "steps": [{"id": "q", "callback": "x", "call": call}]})
    _, commands = advance(start({"n": 3}), definition, World().facts())
    assert commands == (CallOut("r1.q:1.1", call["url"], {"n": 3}, commands[0].visit),)


def test_another_workflow_is_a_step():
    definition = flow(
        {"id": "w", "workflow": "inner", "input": {"x": "=input.x"}, "result": "got"},
        output={"got": "=data.got.of"},
    )
    world = World()
    run = play(definition, world, given={"x": 1})
    assert world.tasks["r1.w:1.1"].input == {"x": 1}
    assert run.output == {"got": "r1.w:1.1"}


@pytest.mark.parametrize(
    ("until", "hour"), [("09:30", 12.5), ("=input.at", 15.0), ("=input.local", 18.0)]
)
def test_a_delay_until_a_time_of_the_business(until, hour):
    definition = flow({"id": "d", "delay": {"until": until, "zone": "America/Montevideo"}})
    given_ = {"at": "2026-03-02T15:00:00+00:00", "local": "2026-03-02T15:00:00"}
    run, _ = advance(start(given_), definition, World().facts())
    assert run.due_at == dt.datetime(2026, 3, 2, tzinfo=dt.UTC) + dt.timedelta(hours=hour)


def test_a_time_of_day_that_is_over_is_tomorrows():
    definition = flow({"id": "d", "delay": {"until": "08:00", "zone": "America/Montevideo"}})
    run, _ = advance(start(), definition, World().facts())
    assert run.visits[0].due_at == dt.datetime(2026, 3, 3, 11, tzinfo=dt.UTC)


def test_a_failed_run_goes_on_from_where_it_stopped():
    definition = flow(
        {"id": "a", "task": "t"},
        {
            "id": "p",
            "parallel": {
                "one": [{"id": "b", "task": "t"}],
                "two": [{"id": "c", "delay": {"for": "5m"}}, {"id": "c2", "task": "t"}],
            },
        },
        {"id": "d", "task": "t"},
    )
    world = World(fails={"b": 1})
    run = play(definition, world)
    assert run.state is RunState.FAILED
    run = retried(run, definition)
    for _ in range(50):
        world.expected |= {
            v.task_id("r1") for v in run.visits if v.state is VisitState.ACTIVE and v.step == "b"
        }
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        for task_id in world.ready():
            world.end(task_id)
        world.now += MINUTE
    assert run.state is RunState.COMPLETED
    assert [task for task in world.tasks if ".a:" in task] == ["r1.a:1.1"]
    assert [task for task in world.tasks if ".b-" in task] == ["r1.b-1:1.1", "r1.b-1:1.2"]


def test_what_was_undone_is_not_gone_on_from():
    definition = flow(
        {"id": "a", "task": "t", "compensate": {"task": "undo"}},
        {"id": "b", "task": "t", "on_failure": "compensate"},
    )
    run = play(definition, World(fails={"b": 9}))
    with pytest.raises(Conflict):
        retried(run, definition)


def test_a_run_of_many_steps_stays_small():
    steps = [{"id": "m", "map": "input.list", "limit": 1000, "steps": [{"id": "a", "task": "t"}]}]
    run = start({"list": list(range(1000))})
    definition, world = flow(*steps), World()
    for _ in range(3):
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        for task_id in world.ready():
            world.end(task_id)
    assert run.state is RunState.COMPLETED
    size = len(bson.encode({"visits": {v.key: v.to_document() for v in run.visits}}))
    assert size < 400_000


def test_a_paused_run_is_left_as_it_is():
    definition = flow({"id": "a", "task": "t"})
    run = replace(start(), state=RunState.PAUSED)
    assert advance(run, definition, World().facts()) == (run, ())


def go_on(run, definition, world, given=None) -> Run:
    """A run that is somewhere, to its end."""
    if given is not None:
        run = replace(run, input=given)
    for _ in range(100):
        world.expected |= {
            visit.task_id("r1")
            for visit in run.visits
            if visit.state is VisitState.ACTIVE and definition.step(visit.step).kind == "task"
        }
        run, commands = advance(run, definition, world.facts())
        world.carry_out(commands)
        if run.state.final:
            return run
        for task_id in world.ready():
            world.end(task_id)
        world.now += MINUTE
    return run


@pytest.mark.parametrize(
    ("step", "bad", "good", "last"),
    [
        ({"id": "x", "condition": "input.n > 1", "then": "yes", "else": "no"}, {}, {"n": 2}, "yes"),
        ({"id": "x", "condition": "input.n > 1", "then": "yes", "else": "no"}, {}, {"n": 0}, "no"),
        (
            {"id": "x", "switch": [{"when": "input.n > 1", "then": "yes"}], "default": "no"},
            {},
            {"n": 2},
            "yes",
        ),
    ],
)
def test_a_run_that_failed_at_a_choice_chooses_when_it_is_retried(step, bad, good, last):
    ends = [{"id": "yes", "task": "t", "next": "end"}, {"id": "no", "task": "t"}]
    definition = flow(step, *ends)
    run = go_on(start(bad), definition, world := World())
    assert run.error["code"] == "bad_expression"
    run = go_on(retried(run, definition), definition, world, given=good)
    assert run.state is RunState.COMPLETED
    assert [visit.step for visit in run.visits] == ["x", last]


@pytest.mark.parametrize("entries", [0, 1, 25])
def test_a_map_that_could_not_begin_begins_when_it_is_retried(entries):
    steps = [{"id": "a", "task": "t"}]
    definition = flow({"id": "m", "map": "input.list", "steps": steps, "limit": 3})
    run = go_on(start({"list": "none"}), definition, world := World())
    assert run.error["code"] == "bad_expression"
    given = {"list": list(range(entries))}
    run = go_on(retried(run, definition), definition, world, given=given)
    assert run.state is RunState.COMPLETED
    assert len(world.tasks) == entries


@given(
    fails=st.sets(st.integers(0, 11), min_size=1),
    limit=st.integers(1, 12),
    join=st.sampled_from(["all", "any", 5]),
)
@settings(max_examples=60, deadline=None)
def test_a_map_whose_entries_failed_goes_on_from_them_and_does_none_twice(fails, limit, join):
    steps = [{"id": "a", "task": "t"}, {"id": "b", "task": "t", "payload": {"n": "=item"}}]
    definition = flow(
        {"id": "m", "map": "input.list", "steps": steps, "limit": limit, "join": join},
        {"id": "z", "task": "t"},
    )
    broken = set(fails)

    class Choosy(World):
        def end(self, task_id):
            command = self.tasks[task_id]
            if command.visit.step == "b" and command.payload["n"] in broken:
                self.outcomes[task_id] = Outcome(False, code="broken")
            else:
                self.outcomes[task_id] = Outcome(True, {"of": task_id})

    world = Choosy()
    run = go_on(start({"list": list(range(12))}), definition, world)
    needed = {"all": 12, "any": 1}.get(join, join)
    assert (run.state is RunState.COMPLETED) == (12 - len(fails) >= needed)
    done = {task for task, outcome in world.outcomes.items() if outcome.completed}
    if run.state is RunState.FAILED:
        broken.clear()
        run = go_on(retried(run, definition), definition, world)
        assert run.state is RunState.COMPLETED
        # Each entry came through both steps at most once, and what was done stayed done.
        now_done = [task for task, outcome in world.outcomes.items() if outcome.completed]
        assert done <= set(now_done)
        places = [task.rpartition(".")[0] for task in now_done]
        assert len(places) == len(set(places))


def test_what_expressions_make_up_has_a_limit():
    """A result of a megabyte, put together with itself."""
    big = {"text": "x" * 700_000}
    definition = flow(
        {"id": "a", "task": "t", "result": "big"},
        {"id": "b", "task": "t", "payload": {"two": "=data.big.text + data.big.text"}},
    )
    run = go_on(start(), definition, World(results={"a": big}))
    assert (run.state, run.error["code"]) == (RunState.FAILED, "too_large")
    definition = flow(
        {"id": "a", "task": "t", "result": "big"}, output={"x": "=data.big", "y": "=data.big"}
    )
    run = go_on(start(), definition, World(results={"a": big}))
    assert (run.state, run.error["code"]) == (RunState.FAILED, "too_large")
