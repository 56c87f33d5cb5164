"""The outbox: nothing leaves before its commit, and what happens when a sender dies."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from orchestrator.context import Writer, ordering_key
from orchestrator.declarations import Agent
from orchestrator.errors import Conflict, NotFound, RetryLater, StaleContext
from orchestrator.outbox import (
    Channel,
    Entry,
    EntryState,
    NotNow,
    Outcome,
    Outgoing,
    Refused,
    Sent,
    Unknown,
)
from orchestrator.tasks import Request

PHONE = "+59899000001"
agent = Agent(
    role="sender",
    name="Sender",
    capabilities=["paper_integration"],
    slots=2,
)


class Delivery(BaseModel):
    entry_id: str
    round: int


@agent.handles("deliver", public=False)
def deliver(context, payload: Delivery):
    return None


class Death(BaseException):
    """The sender's process ends."""


class Paper(Channel):
    """The outside world as a test tells it to be: each send takes the next of its outcomes."""

    def __init__(self, *outcomes: Outcome | type[Death], repeats_safely: bool = False) -> None:
        self.outcomes = list(outcomes)
        self.seen: list[str] = []
        self._repeats_safely = repeats_safely

    @property
    def repeats_safely(self) -> bool:
        return self._repeats_safely

    def send(self, entry: Entry) -> Outcome:
        self.seen.append(entry.id)
        outcome = self.outcomes.pop(0) if self.outcomes else Sent(f"ref-{len(self.seen)}")
        if isinstance(outcome, type):
            raise outcome
        return outcome


@pytest.fixture
def engine(engine):
    engine.init([agent])
    return engine


def letter(text: str = "hello", **more) -> Outgoing:
    return Outgoing("paper", PHONE, {"text": text}, **more)


def turn(engine, session):
    request = Request("t", {"message": "hi"}, ordering_key=ordering_key(session.id))
    return engine.store.accept(request, agent="a", queue="q", decision={}, epoch=0)[0]


def commit(engine, session, task, *outgoing: Outgoing) -> None:
    engine.sessions.commit(
        engine.sessions.begin(session.id, task),
        writer=Writer("conversation_agent", frozenset()),
        reply={"text": "hello"},
        outgoing=outgoing,
    )


@pytest.fixture
def committed(engine) -> Callable[..., list[Entry]]:
    """Entries of one more committed turn of a session."""

    def of(*outgoing: Outgoing) -> list[Entry]:
        session = engine.sessions.open("s", None, caller="c", channel="web", trusted=False)
        task = turn(engine, session)
        commit(engine, session, task, *outgoing)
        engine.outbox.project("s")
        return [engine.outbox.get(f"{task.id}.{n}") for n in range(len(outgoing))]

    return of


def entries(engine) -> list[dict]:
    return sorted(engine.database["outbox"].find(), key=lambda entry: entry["_id"])


def sending_tasks(engine) -> list[dict]:
    tasks = engine.database["tasks"].find({"type": "deliver"})
    return sorted(tasks, key=lambda task: task["seq"])


def died_while_sending(engine, entry: Entry, *, repeats_safely: bool) -> None:
    with pytest.raises(Death):
        engine.outbox.deliver(entry.id, 0, Paper(Death, repeats_safely=repeats_safely))
    assert engine.outbox.get(entry.id).state is EntryState.SENDING


def test_a_turn_that_did_not_count_sends_nothing(engine):
    session = engine.sessions.open("s", None, caller="c", channel="web", trusted=False)
    engine.sessions.take("s", "ana")
    with pytest.raises(StaleContext):
        commit(engine, session, turn(engine, session), letter())
    assert engine.outbox.project("s") == 0
    assert entries(engine) == []


def test_each_entry_of_a_commit_is_sent_by_one_task_however_often_it_is_projected(engine):
    session = engine.sessions.open("s", None, caller="c", channel="web", trusted=False)
    task = turn(engine, session)
    commit(engine, session, task, letter("one"), letter("two"))
    commit(engine, session, task, letter("one"), letter("two"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: engine.outbox.project("s"), range(4)))
    assert [entry["body"]["text"] for entry in entries(engine)] == ["one", "two"]
    sent_by = [task["payload"]["entry_id"] for task in sending_tasks(engine)]
    assert sent_by == [f"{task.id}.0", f"{task.id}.1"]
    assert engine.sessions.get("s").outgoing == ()


def test_entries_to_one_recipient_are_sent_in_the_order_of_their_commits(engine, committed):
    made = [committed(letter(str(n)))[0].id for n in range(5)]
    tasks = sending_tasks(engine)
    assert [task["payload"]["entry_id"] for task in tasks] == made
    assert len({task["key"] for task in tasks}) == 1
    assert [task["state"] for task in tasks] == ["queued"] + ["blocked"] * 4


def test_no_address_is_in_a_key_and_none_in_the_payload(engine, committed):
    committed(letter())
    (task,) = sending_tasks(engine)
    assert PHONE[1:] not in str(task)
    assert task["key"] == f"out:paper:{engine.contacts.alias(PHONE)}"


def test_what_a_process_that_died_after_its_commit_left_is_sent(engine, advance):
    session = engine.sessions.open("s", None, caller="c", channel="web", trusted=False)
    commit(engine, session, turn(engine, session), letter())
    assert engine.outbox.rescue(100) == 0
    advance(10)
    assert engine.outbox.rescue(100) == 1
    assert len(sending_tasks(engine)) == 1
    assert engine.outbox.rescue(100) == 0


def test_what_cannot_be_mended_keeps_nothing_else_waiting(engine, advance):
    for name in ("s1", "s2"):
        session = engine.sessions.open(name, None, caller="c", channel="web", trusted=False)
        commit(engine, session, turn(engine, session), letter(name))
    engine.database["sessions"].update_one({"_id": "s1"}, {"$unset": {"outgoing.0.body": ""}})
    task = turn(engine, session)
    for n in range(2):
        engine.outbox._insert(f"{task.id}.{n}", task.id, None, letter())
    engine.database["outbox"].update_one({"_id": f"{task.id}.0"}, {"$unset": {"round": ""}})
    advance(10)
    with capture_logs() as logged:
        engine.outbox.rescue(100)
    sent = {sent["payload"]["entry_id"] for sent in sending_tasks(engine)}
    assert f"{task.id}.1" in sent
    assert len(sent) == 2
    stumbled = [(line["step"], line["error"]) for line in logged if line["log_level"] == "error"]
    assert stumbled == [("outgoing", "KeyError"), ("entries", "TypeError")]
    assert "s1" not in str(logged)


def test_an_entry_without_a_task_gets_one(engine, advance):
    task = turn(engine, engine.sessions.open("s", None, caller="c", channel="web", trusted=False))
    entry = engine.outbox._insert(f"{task.id}.0", task.id, None, letter())
    advance(10)
    engine.outbox.rescue(100)
    assert [t["payload"]["entry_id"] for t in sending_tasks(engine)] == [entry.id]


def test_an_effect_without_a_session_is_made_once(engine):
    task = engine.store.accept(
        Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
    )[0]
    assert engine.outbox.put(task, 0, letter()) == engine.outbox.put(task, 0, letter())
    assert len(sending_tasks(engine)) == 1


def test_an_entry_is_sent_once_and_known_by_its_reference(engine, committed):
    (entry,) = committed(letter())
    paper = Paper()
    assert engine.outbox.deliver(entry.id, 0, paper).state is EntryState.SENT
    assert engine.outbox.deliver(entry.id, 0, paper).reference == "ref-1"
    assert paper.seen == [entry.id]


def test_a_sender_that_died_leaves_an_uncertain_entry_where_a_repetition_would_be_seen(
    engine, committed
):
    (entry,) = committed(letter())
    died_while_sending(engine, entry, repeats_safely=False)
    paper = Paper()
    for _ in range(2):
        found = engine.outbox.deliver(entry.id, 0, paper)
        assert (found.state, found.reason["code"]) == (EntryState.UNCERTAIN, "sender_lost")
    assert paper.seen == []


def test_a_sender_that_died_is_made_good_where_a_repetition_is_recognised(engine, committed):
    (entry,) = committed(letter())
    died_while_sending(engine, entry, repeats_safely=True)
    paper = Paper(repeats_safely=True)
    assert engine.outbox.deliver(entry.id, 0, paper).state is EntryState.SENT
    assert paper.seen == [entry.id]


def test_a_sender_given_up_for_dead_that_knows_better_is_believed(engine, committed):
    (entry,) = committed(letter())
    arrived, go_on = threading.Event(), threading.Event()

    class Slow(Paper):
        def send(self, entry: Entry) -> Outcome:
            arrived.set()
            assert go_on.wait(10)
            return super().send(entry)

    with ThreadPoolExecutor(1) as pool:
        sleeper = pool.submit(engine.outbox.deliver, entry.id, 0, Slow())
        assert arrived.wait(10)
        assert engine.outbox.deliver(entry.id, 0, Paper()).state is EntryState.UNCERTAIN
        go_on.set()
        assert sleeper.result().state is EntryState.SENT
    assert engine.outbox.get(entry.id).reference == "ref-1"


@pytest.mark.parametrize("repeats_safely", [False, True])
def test_what_was_surely_not_taken_is_tried_again(engine, committed, repeats_safely):
    (entry,) = committed(letter())
    paper = Paper(NotNow("busy", "Busy.", after_s=7.0), repeats_safely=repeats_safely)
    with pytest.raises(RetryLater) as later:
        engine.outbox.deliver(entry.id, 0, paper)
    assert later.value.after_s == 7.0
    waiting = engine.outbox.get(entry.id)
    assert (waiting.state, waiting.reason["code"]) == (EntryState.PENDING, "busy")
    assert engine.outbox.deliver(entry.id, 0, paper).state is EntryState.SENT


def test_an_unknown_outcome_is_repeated_only_where_that_is_recognised(engine, committed):
    first, second = committed(letter("one"), letter("two"))
    unknown = Unknown("timeout", "No answer came.")
    assert engine.outbox.deliver(first.id, 0, Paper(unknown)).state is EntryState.UNCERTAIN
    with pytest.raises(RetryLater):
        engine.outbox.deliver(second.id, 0, Paper(unknown, repeats_safely=True))
    assert engine.outbox.get(second.id).state is EntryState.PENDING


def test_patience_ends(engine, committed, advance):
    (entry,) = committed(letter())
    advance(engine.settings.delivery_patience_s + 1)
    failed = engine.outbox.deliver(entry.id, 0, Paper(NotNow("busy", "Busy.")))
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "busy")


def test_a_channel_that_is_off_fails_with_that_reason(engine, committed):
    (entry,) = committed(letter())
    failed = engine.outbox.deliver(entry.id, 0, None)
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "channel_off")


def test_what_the_bot_wrote_does_not_leave_once_a_person_has_the_conversation(engine, committed):
    of_bot, of_person = committed(letter("bot"), letter("person", author="person"))
    engine.database["sessions"].update_one(
        {"_id": "s"}, {"$set": {"owner": "human", "taken_by": "ana"}}
    )
    dropped = engine.outbox.deliver(of_bot.id, 0, Paper())
    assert (dropped.state, dropped.reason["code"]) == (EntryState.DROPPED, "person_took_over")
    assert engine.outbox.deliver(of_person.id, 0, Paper()).state is EntryState.SENT


def test_taking_over_drops_what_has_not_begun_to_leave(engine, committed):
    in_flight, of_bot, of_person = committed(letter("1"), letter("2"), letter("3", author="person"))
    died_while_sending(engine, in_flight, repeats_safely=True)
    assert engine.outbox.drop_pending("s") == 1
    states = [engine.outbox.get(e.id).state.value for e in (in_flight, of_bot, of_person)]
    assert states == ["sending", "dropped", "pending"]


def test_follow_ups_and_only_they_heed_an_opt_out(engine, committed):
    reply, follow_up = committed(letter("answer"), letter("well?", purpose="follow_up"))
    engine.contacts.opt_out(PHONE)
    assert engine.outbox.deliver(reply.id, 0, Paper()).state is EntryState.SENT
    dropped = engine.outbox.deliver(follow_up.id, 0, Paper())
    assert (dropped.state, dropped.reason["code"]) == (EntryState.DROPPED, "opted_out")


def test_a_person_has_an_uncertain_entry_sent_again_or_drops_it(engine, committed):
    first, second = committed(letter("one"), letter("two"))
    for entry in (first, second):
        died_while_sending(engine, entry, repeats_safely=False)
        engine.outbox.deliver(entry.id, 0, Paper())
    again = engine.outbox.resolve(first.id, "send_again", by="operator")
    assert (again.state, again.round) == (EntryState.PENDING, 1)
    assert [t["payload"] for t in sending_tasks(engine)][-1] == {"entry_id": first.id, "round": 1}
    # The task of the earlier round has nothing to do with it any more.
    assert engine.outbox.deliver(first.id, 0, Paper()).state is EntryState.PENDING
    assert engine.outbox.deliver(first.id, 1, Paper()).state is EntryState.SENT
    assert engine.outbox.resolve(second.id, "drop", by="operator").state is EntryState.DROPPED
    for entry in (first, second):
        with pytest.raises(Conflict):
            engine.outbox.resolve(entry.id, "send_again", by="operator")


def test_an_entry_whose_task_was_given_up_is_shown(engine, committed, advance):
    waiting, begun = committed(letter("one"), letter("two"))
    died_while_sending(engine, begun, repeats_safely=False)
    for task in reversed(sending_tasks(engine)):
        engine.coordinator.cancel(task["_id"])
    advance(10)
    engine.outbox.rescue(100)
    assert engine.outbox.get(waiting.id).state is EntryState.FAILED
    assert engine.outbox.get(begun.id).state is EntryState.UNCERTAIN


def test_a_healthy_backlog_is_only_looked_at(engine, committed, advance):
    committed(letter("one"), letter("two"))
    advance(10)
    assert engine.outbox.rescue(100) == 0
    assert [task["state"] for task in sending_tasks(engine)] == ["queued", "blocked"]


def test_a_failed_refusal_is_final(engine, committed):
    (entry,) = committed(letter())
    refused = Refused("unknown_number", "Nobody has this number.")
    for _ in range(2):
        assert engine.outbox.deliver(entry.id, 0, Paper(refused)).state is EntryState.FAILED


def test_an_erased_entry_is_said(engine):
    with pytest.raises(NotFound):
        engine.outbox.deliver("nothing.0", 0, Paper())


@pytest.mark.parametrize(
    "query",
    [
        {"_id": "e3", "version": 1},
        {"state": "pending", "check_at": {"$lt": 5}},
        {"session_id": "s1", "listed": {"$gt": "e1"}},
        {"state": "pending", "listed": {"$gt": "e1"}},
        {"reference": "r3"},
    ],
)
def test_a_query_answers_with_its_index_as_without(engine, query):
    documents = [
        {
            "_id": f"e{n}",
            "version": n % 2,
            "listed": f"e{n}",
            "state": "pending" if n % 3 else "sent",
            "session_id": f"s{n % 3}",
        }
        | ({"reference": f"r{n}"} if n % 3 == 0 else {"check_at": n})
        for n in range(12)
    ]
    answers = []
    for name in ("outbox", "plain"):
        engine.database[name].insert_many(documents)
        answers.append(sorted(found["_id"] for found in engine.database[name].find(query)))
    assert answers[0] == answers[1] != []
