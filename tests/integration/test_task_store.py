"""The task store's transitions, on a real MongoDB-protocol server."""

import datetime as dt
import itertools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest
from pymongo.collection import Collection

from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.errors import (
    IdempotencyKeyReused,
    InvalidPayload,
    StaleAttempt,
    TaskIsFinal,
)
from orchestrator.tasks import Priority, Request, State, Task, TaskStore, earlier_than, new_token
from orchestrator.together import Together

T = TypeVar("T")


@pytest.fixture
def store(engine: Engine) -> TaskStore:
    return engine.store


def ask(text: str = "hello", **more: object) -> Request:
    return Request(**{"type": "echo", "payload": {"text": text}, "caller": "test"} | more)


def accept(store: TaskStore, request: Request | None = None) -> Task:
    task, _ = store.accept(
        request or ask(),
        agent="echo_agent",
        queue="echo",
        decision={"agent": "echo_agent"},
        epoch=1,
    )
    return task


def claim(store: TaskStore, task: Task):
    return store.claim(task.id, task.fence, "worker-1")


def events(task: Task) -> list[str]:
    return [event["event"] for event in task.timeline]


def test_an_accepted_task_is_claimed_and_finished_once(store):
    task = accept(store)
    held = claim(store, task)
    assert held.task.state is State.RUNNING
    assert held.task.payload == {"text": "hello"}
    done = store.finish(held, {"answer": 42})
    stored = store.get(task.id)
    assert stored.state is done.state is State.COMPLETED
    assert stored.result == {"answer": 42}
    assert events(stored) == ["accepted", "claimed", "completed"]
    store.finish(held, {"answer": 43})
    assert store.get(task.id).result == {"answer": 42}
    with pytest.raises(StaleAttempt):
        store.retry(held, {"code": "x"}, 0.0)


def test_a_transition_returns_the_task_as_it_is_stored(store):
    task = accept(store, ask(ordering_key="k"))
    head = store.promote("k", 1)
    assert head == store.get(task.id)
    held = claim(store, head)
    assert held.task == store.get(task.id)
    retried = store.retry(held, {"code": "x"}, 0.0)
    assert comparable(retried) == comparable(store.get(task.id))


def comparable(task: Task) -> dict:
    return {name: value for name, value in vars(task).items() if name != "worker"}


def test_of_many_claimants_one_gets_the_task(store):
    task = accept(store)
    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(lambda n: store.claim(task.id, task.fence, f"w{n}"), range(16)))
    assert sum(held is not None for held in claims) == 1


def test_a_message_of_an_older_state_claims_nothing(store):
    task = accept(store)
    retried = store.retry(claim(store, task), {"code": "x"}, 0.0)
    assert claim(store, task) is None
    assert claim(store, retried) is not None


def test_a_worker_given_up_for_dead_cannot_overwrite(store):
    task = accept(store)
    zombie = claim(store, task)
    taken = store.take_back(zombie.task, 1)
    assert taken.crashes == 1
    again = claim(store, taken)
    with pytest.raises(StaleAttempt):
        store.finish(zombie, "late")
    store.finish(again, "right")
    assert store.get(task.id).result == "right"


def test_a_renewed_lease_is_not_taken_back(store):
    task = accept(store)
    held = claim(store, task)
    store._clock.observe(store._clock.now() + dt.timedelta(seconds=1))
    assert store.renew([(task.id, held.fence)]) == 1
    assert store.take_back(held.task, 1) is None
    assert store.get(task.id).state is State.RUNNING


def test_too_many_crashes_end_in_a_dead_letter(engine, store):
    task = accept(store)
    for _ in range(engine.settings.max_crashes):
        task = store.take_back(claim(store, task).task, 1)
        assert task.state is State.QUEUED
    dead = store.take_back(claim(store, task).task, 1)
    assert dead.state is State.FAILED
    assert store.get(task.id).error["code"] == "worker_lost"


def test_a_lost_acknowledgement_is_recognised_by_its_token(store):
    """The driver retries a write whose answer was lost; the second matches nothing."""
    task = accept(store)
    held = claim(store, task)
    fields = store._final(State.COMPLETED, result="once")
    event = {"at": store._clock.now(), "event": "completed"}
    for _ in range(2):
        assert store._transition(task.id, held.fence, fields, event=event, token=held.token)
    assert store.get(task.id).fence == held.fence + 1
    assert not store._transition(task.id, held.fence, fields, event=event, token="another")


def test_a_claim_whose_acknowledgement_was_lost_is_made_again_with_its_token(store):
    task, token = accept(store), new_token()
    first = store.claim(task.id, task.fence, "worker-1", token)
    again = store.claim(task.id, task.fence, "worker-1", token)
    assert first.task == again.task
    assert store.claim(task.id, task.fence, "worker-1", new_token()) is None
    assert store.get(task.id).attempts == 1


def test_the_same_key_is_the_same_task_and_another_request_is_refused(store):
    first = accept(store, ask(idempotency_key="a"))
    second, created = store.accept(
        ask(idempotency_key="a"), agent="x", queue="x", decision={}, epoch=1
    )
    assert (second.id, created) == (first.id, False)
    with pytest.raises(IdempotencyKeyReused):
        accept(store, ask("other", idempotency_key="a"))
    assert accept(store, ask(idempotency_key="a", caller="somebody else")).id != first.id


def test_a_key_used_by_many_at_once_is_accepted_once(store):
    with ThreadPoolExecutor(12) as pool:
        tasks = list(pool.map(lambda _: accept(store, ask(idempotency_key="k")), range(24)))
    assert len({task.id for task in tasks}) == 1


def test_the_same_words_while_unanswered_are_the_same_message(store):
    first = accept(store, ask(twin="session/hello"))
    assert accept(store, ask(twin="session/hello")).id == first.id
    store.finish(claim(store, first), "answered")
    assert accept(store, ask(twin="session/hello")).id != first.id


def test_the_same_words_after_ten_seconds_are_new_words(store):
    first = accept(store, ask(twin="session/hello"))
    store._clock.observe(store._clock.now() + dt.timedelta(seconds=11))
    assert accept(store, ask(twin="session/hello")).id != first.id


def test_numbers_of_a_key_are_dense_and_distinct_under_concurrency(store):
    with ThreadPoolExecutor(8) as pool:
        tasks = list(pool.map(lambda n: accept(store, ask(str(n), ordering_key="s")), range(40)))
    assert sorted(task.seq for task in tasks) == list(range(1, 41))
    assert {task.state for task in tasks} == {State.BLOCKED}


def test_numbers_go_on_where_older_tasks_of_the_key_are_gone(engine, store):
    for n in range(3):
        accept(store, ask(str(n), ordering_key="s"))
    engine.database["tasks"].delete_many({"seq": {"$lt": 3}})
    assert accept(store, ask("next", ordering_key="s")).seq == 4


def test_what_cannot_be_stored_is_refused(store):
    with pytest.raises(InvalidPayload):
        accept(store, ask("\ud800"))


def test_a_wrong_hint_of_the_last_number_costs_a_read_and_no_place(store):
    assert [accept(store, ask(ordering_key="s")).seq for _ in range(3)] == [1, 2, 3]
    assert accept(store, ask(ordering_key="s", seq_after=1)).seq == 4


def test_one_task_of_a_key_is_head_and_they_come_in_order(store):
    tasks = [accept(store, ask(str(n), ordering_key="s")) for n in range(5)]
    done = []
    for _ in tasks:
        with ThreadPoolExecutor(6) as pool:
            heads = [head for head in pool.map(lambda _: store.promote("s", 1), range(6)) if head]
        assert len(heads) == 1
        assert store.promote("s", 1) is None
        store.finish(claim(store, heads[0]), None)
        done.append(heads[0].id)
    assert done == [task.id for task in tasks]


def test_other_keys_do_not_wait(store):
    accept(store, ask(ordering_key="a"))
    accept(store, ask(ordering_key="b"))
    assert store.promote("a", 1) is not None
    assert store.promote("b", 1) is not None


@pytest.mark.parametrize("how", ["retry", "wait"])
def test_a_head_that_retries_or_waits_keeps_its_key(store, how):
    accept(store, ask(ordering_key="s"))
    accept(store, ask(ordering_key="s"))
    held = claim(store, store.promote("s", 1))
    if how == "retry":
        store.retry(held, {"code": "x"}, 5.0)
    else:
        store.wait(held, [ask()], {})
    assert store.promote("s", 1) is None


def test_a_blocked_task_that_is_cancelled_gives_its_place_up(store):
    tasks = [accept(store, ask(ordering_key="s")) for _ in range(3)]
    head = store.promote("s", 1)
    store.cancel(tasks[1], {"code": "cancelled"})
    assert store.promote("s", 1) is None
    store.finish(claim(store, head), None)
    assert store.promote("s", 1).id == tasks[2].id


def test_cancelling_a_running_task_marks_it_and_leaves_it_to_its_worker(store):
    held = claim(store, accept(store))
    marked = store.cancel(held.task, {"code": "cancelled"})
    assert (marked.state, marked.cancel) == (State.RUNNING, True)
    assert store.get(marked.id).cancel
    store.finish(held, "was quicker")
    with pytest.raises(TaskIsFinal):
        store.cancel(held.task, {"code": "cancelled"})


def test_a_cancel_that_races_with_a_claim_settles_on_one_outcome(store):
    for _ in range(20):
        task = accept(store)
        barrier = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            claimed = pool.submit(lambda t=task, b=barrier: (b.wait(), claim(store, t))[1])
            cancelled = pool.submit(
                lambda t=task, b=barrier: (b.wait(), store.cancel(t, {"code": "cancelled"}))[1]
            )
        stored = store.get(task.id)
        if claimed.result() is None:
            assert stored.state is State.CANCELLED
        else:
            assert stored.cancel
        assert cancelled.result().id == task.id


def test_a_child_is_the_same_however_often_it_is_inserted(store):
    parent = store.wait(claim(store, accept(store)), [ask("a"), ask("b")], {"step": 1})
    for _ in range(2):
        for n in range(2):
            store.accept(
                ask("child"), agent="x", queue="x", decision={}, epoch=1, parent=(parent, 1, n)
            )
    assert set(store.many(parent.child_ids())) == {f"{parent.id}.1.0", f"{parent.id}.1.1"}
    assert store.get(f"{parent.id}.1.0").depth == 1


def test_a_child_ends_by_its_parents_deadline(store):
    parent = store.wait(claim(store, accept(store, ask(deadline_s=60))), [ask()], {})
    child, _ = store.accept(
        ask(), agent="x", queue="x", decision={}, epoch=1, parent=(parent, 1, 0)
    )
    assert child.deadline == parent.deadline


def test_failures_and_crashes_are_counted_apart(store):
    task = accept(store)
    task = store.retry(claim(store, task), {"code": "x"}, 0.0)
    task = store.take_back(claim(store, task).task, 1)
    task = store.retry(claim(store, task), {"code": "unavailable"}, 0.0, failed=False)
    stored = store.get(task.id)
    assert (stored.failures, stored.crashes, stored.attempts) == (1, 1, 3)


def test_final_tasks_expire_and_others_do_not(engine, store):
    done, waiting = accept(store), accept(store)
    store.finish(claim(store, done), None)
    found = {d["_id"]: d for d in engine.database["tasks"].find()}
    days = engine.settings.task_retention_days
    assert found[done.id]["expire_at"] - found[done.id]["finished_at"] == dt.timedelta(days=days)
    assert "expire_at" not in found[waiting.id]


def test_what_has_ended_is_tallied_and_what_has_not_is_counted(engine, store):
    store.finish(claim(store, accept(store)), None)
    store.fail(claim(store, accept(store)), {"code": "x"})
    store.cancel(accept(store), {"code": "cancelled"})
    accept(store)
    accept(store, ask(ordering_key="k"))
    counts = store.counts()
    assert counts == {state: int(state is not State.RUNNING) for state in State} | {
        State.WAITING: 0
    }
    # A tally outlives its tasks, and is told once.
    engine.database["tasks"].delete_many({})
    assert store.counts()[State.COMPLETED] == 1
    engine.init([])
    assert store.counts()[State.FAILED] == 1


# -- every query shape: with its index as without ------------------------------------------

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=20)
SHAPES = {
    "transition": {"_id": "t07", "fence": 1},
    "transition with lease": {"_id": "t07", "fence": 1, "check_at": NOW + dt.timedelta(seconds=7)},
    "by id": {"_id": "t07"},
    "by ids": {"_id": {"$in": ["t01", "t07", "none"]}},
    "since": {"_id": {"$gt": "t20"}},
    "idempotency": {"idempotency": "i07"},
    "twin": {"twin": "w3"},
    "last of a key": {"key": "k1"},
    "blocked of a key": {"key": "k1", "state": "blocked", "seq": {"$gt": 0}},
    "ahead of a key": {"key": "k1", "seq": {"$gt": 20}},
    "due": {"state": "queued", "check_at": earlier_than(LATER)},
    "ahead": {"state": "queued", "check_at": {"$gt": LATER}},
    "of a state": {"state": "queued"},
    "lost of a lane": {"lane": "q/low", "published_at": earlier_than(LATER)},
    "ahead of a lane": {"lane": "q/low", "published_at": {"$gt": LATER}},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_query_answers_with_its_index_as_without(engine, shape):
    states = itertools.cycle(["queued", "blocked", "running", "completed"])
    documents = []
    for n, state in zip(range(40), states, strict=False):
        document = {
            "_id": f"t{n:02}",
            "fence": n % 3,
            "state": state,
            "idempotency": f"i{n:02}",
            "check_at": NOW + dt.timedelta(seconds=n),
        }
        if state == "queued":
            document |= {"lane": f"q/{['low', 'high'][n % 3 == 0]}"}
            document |= {"published_at": NOW + dt.timedelta(seconds=n)}
        if n % 2:
            document |= {"key": f"k{n % 3}", "seq": n}
        if n % 5 == 0:
            del document["check_at"]
        if n % 10 == 3:
            document["twin"] = f"w{n}"
        documents.append(document)
    indexed, plain = engine.database["tasks"], engine.database["plain"]
    indexed.insert_many(documents)
    plain.insert_many(documents)

    plan = indexed.find(SHAPES[shape]).explain()["queryPlanner"]["winningPlan"]
    assert "COLLSCAN" not in str(plan)

    def answer(collection, **sort):
        found = collection.find(SHAPES[shape])
        return [document["_id"] for document in (found.sort(**sort) if sort else found)]

    assert sorted(answer(indexed)) == sorted(answer(plain))
    if shape in ("last of a key", "blocked of a key"):
        for direction in (1, -1):
            by_seq = {"key_or_list": "seq", "direction": direction}
            assert answer(indexed, **by_seq) == answer(plain, **by_seq)
    assert indexed.count_documents(SHAPES[shape]) == plain.count_documents(SHAPES[shape])
    changed = {"$set": {"touched": True}}
    assert (
        indexed.update_many(SHAPES[shape], changed).matched_count
        == plain.update_many(SHAPES[shape], changed).matched_count
    )


def test_claims_and_ends_that_come_at_once_are_each_decided_for_themselves(engine):
    """They share round trips: two claims of one task, a lost attempt and a result that cannot
    be stored must not change what becomes of their neighbours."""
    tasks = [
        engine.store.accept(Request("t", {}), agent="a", queue="q", decision={}, epoch=0)[0]
        for _ in range(60)
    ]
    twice = [task for task in tasks for _ in range(2)]
    with ThreadPoolExecutor(16) as threads:
        claims = list(threads.map(lambda task: engine.store.claim(task.id, task.fence, "w"), twice))
        won = [claim for claim in claims if claim is not None]
        assert sorted(claim.task.id for claim in won) == sorted(task.id for task in tasks)
        stale, unfit, good = won[:5], won[5:10], won[10:]
        for claim in stale:
            engine.store.retry(claim, {"code": "elsewhere"}, 0.0)

        def end(claim):
            result = 2**70 if claim in unfit else {"n": claim.task.id}
            try:
                return engine.store.finish(claim, result).state
            except (StaleAttempt, OverflowError) as error:
                return type(error)

        ends = dict(zip((c.task.id for c in won), threads.map(end, won), strict=True))
    assert {ends[claim.task.id] for claim in stale} == {StaleAttempt}
    assert {ends[claim.task.id] for claim in unfit} == {OverflowError}
    assert {ends[claim.task.id] for claim in good} == {State.COMPLETED}
    stored = engine.store.many([claim.task.id for claim in good])
    assert all(task.result == {"n": task.id} for task in stored.values())
    assert all(engine.store.get(claim.task.id).state is State.RUNNING for claim in unfit)


def in_one_turn(together: Together, calls: list[Callable[[], T]], eventually) -> list[T]:
    """What becomes of calls that come while another turn goes on."""
    with together._lock:
        together._at_work = True
    with ThreadPoolExecutor(len(calls)) as threads:
        asked = [threads.submit(call) for call in calls]
        eventually(lambda: len(together._calls) == len(calls))
        together._calls[0].turn.set()
        return [each.exception(10) or each.result(10) for each in asked]


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("unfit", [{"id": uuid.uuid4()}, nested(5000)], ids=["uuid", "nested"])
def test_what_cannot_be_stored_is_the_trouble_of_its_own_task_only(store, eventually, unfit):
    won = [claim(store, accept(store)) for _ in range(4)]
    results = ["a", "b", unfit, "d"]
    ends = in_one_turn(
        store._moves,
        [partial(store.finish, held, result) for held, result in zip(won, results, strict=True)],
        eventually,
    )
    assert [store.get(held.task.id).result for held in won] == ["a", "b", None, "d"]
    assert [isinstance(end, Exception) for end in ends] == [False, False, True, False]


def test_a_message_that_comes_twice_costs_its_neighbours_no_round_trips(engine, store, eventually):
    def commands() -> float:
        return sum(
            sample.value
            for metric in engine.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "orchestrator_store_command_seconds_count"
        )

    tasks = [accept(store) for _ in range(12)]
    taken = claim(store, tasks[0])
    before = commands()
    won = in_one_turn(store._moves, [partial(claim, store, task) for task in tasks], eventually)
    assert won[0] is None
    assert [held.task.id for held in won[1:]] == [task.id for task in tasks[1:]]
    assert store.get(taken.task.id).token == taken.token
    # The bulk, and who has what; then the tasks are read, by several at once as it comes.
    assert commands() - before <= 2 + len(tasks)


def test_an_index_whose_definition_changed_is_made_anew(engine):
    tasks = engine.database["tasks"]
    tasks.drop_index("rescue")
    tasks.create_index([("state", 1), ("due", 1)], name="rescue")
    engine.store.ensure_indexes()
    assert list(tasks.index_information()["rescue"]["key"]) == [("state", 1), ("check_at", 1)]


def test_a_second_start_of_every_agent_makes_no_index_anew(engine, monkeypatch):
    """Two definitions under one name would drop each other at each start, and a worker that
    starts beside another would stumble over that."""
    agents = list(discover("agents").values())
    engine.init(agents)
    dropped = []
    drop = Collection.drop_index
    monkeypatch.setattr(
        Collection,
        "drop_index",
        lambda self, name: (dropped.append(f"{self.name}.{name}"), drop(self, name)),
    )
    with ThreadPoolExecutor(3) as starts:
        list(starts.map(lambda _: engine.init(agents), range(3)))
    assert dropped == []


def test_priorities_map_to_steps_in_their_order():
    assert [priority.step for priority in Priority] == sorted(p.step for p in Priority)


def test_a_retry_of_an_earlier_release_is_found(engine, store):
    tasks = engine.database["tasks"]
    task = store.retry(claim(store, accept(store)), {"code": "x"}, 0.0)
    tasks.update_one({"_id": task.id}, {"$unset": {"check_at": "", "lane": ""}})
    tasks.create_index([("run_after", 1)], name="retries")
    assert store.due(State.QUEUED, 10) == []
    engine.store.ensure_indexes()
    assert [due.id for due in store.due(State.QUEUED, 10)] == [task.id]
    assert "retries" not in tasks.index_information()
