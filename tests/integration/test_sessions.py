"""Sessions: who joins which, and the commit point of a turn."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from orchestrator.context import Session, Sessions
from orchestrator.errors import NotFound, StaleContext
from orchestrator.tasks import Request, Task

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def sessions(engine) -> Sessions:
    return engine.sessions


def opened(sessions: Sessions, session_id=None, phone=None, caller="local", trusted=True):
    return sessions.open(session_id, phone, caller=caller, channel="web", trusted=trusted)


def turn(engine, session: Session) -> Task:
    request = Request(type="t", payload={}, ordering_key=session.id)
    return engine.store.accept(request, agent="a", queue="q", decision={}, epoch=0)[0]


def commit(sessions: Sessions, session: Session, task: Task, text: str = "hello"):
    return sessions.commit(
        session,
        task,
        agent_id="conversation_agent",
        state={"said": text},
        shared={"language": "es"},
        reply={"text": text},
        intent="general",
    )


def test_a_session_goes_on_under_its_id(sessions):
    first = opened(sessions, "s1")
    assert opened(sessions, "s1").id == first.id == "s1"
    assert opened(sessions).id != opened(sessions).id


def test_a_known_session_with_another_phone_or_caller_is_a_new_one(sessions):
    opened(sessions, "s1", "+59899000001", trusted=False)
    assert opened(sessions, "s1", "+59899000002", trusted=False).id != "s1"
    assert opened(sessions, "s1", caller="client:web").id != "s1"


def test_a_trusted_phone_goes_on_in_its_open_session_and_others_do_not(sessions):
    first = opened(sessions, "s1", "+59899000001")
    assert opened(sessions, "s2", "+59899000001").id == first.id
    assert opened(sessions, "s3", "+59899000001", trusted=False).id == "s3"
    assert opened(sessions, "s4", "+59899000001", caller="client:web").id == "s4"


def test_a_phone_that_comes_many_times_at_once_has_one_session(sessions):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: opened(sessions, f"x{n}", "+59899000001"), range(16)))
    assert len({session.id for session in found}) == 1


def test_a_turn_counts_once_however_often_it_runs(engine, sessions):
    session = opened(sessions, "s1")
    task = turn(engine, session)
    assert commit(sessions, session, task, "first") == {"text": "first"}
    again = sessions.get("s1")
    assert commit(sessions, again, task, "second") == {"text": "first"}
    assert commit(sessions, session, task, "third") == {"text": "first"}
    assert sessions.get("s1").version == 1


def test_of_two_runs_of_a_turn_one_takes_effect(engine, sessions):
    session = opened(sessions, "s1")
    task = turn(engine, session)
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda n: commit(sessions, session, task, f"run {n}")["text"], range(4))
        )
    assert len(set(replies)) == 1
    assert sessions.get("s1").version == 1


def test_a_turn_worked_out_from_an_older_version_is_refused(engine, sessions):
    session = opened(sessions, "s1")
    first, second = turn(engine, session), turn(engine, session)
    commit(sessions, session, first)
    with pytest.raises(StaleContext):
        commit(sessions, session, second)
    commit(sessions, sessions.get("s1"), second)
    with pytest.raises(StaleContext):
        commit(sessions, sessions.get("s1"), first)


def test_no_reply_commits_while_a_person_has_the_session(engine, sessions):
    session = replace(opened(sessions, "s1"), owner="human")
    with pytest.raises(StaleContext):
        commit(sessions, session, turn(engine, session))
    assert sessions.get("s1").version == 0


def test_an_agent_keeps_its_own_and_adds_to_what_is_shared(engine, sessions):
    session = opened(sessions, "s1")
    commit(sessions, session, turn(engine, session))
    kept = sessions.get("s1")
    assert kept.of_agent("conversation_agent") == {"said": "hello"}
    assert kept.of_agent("quote_agent") == {}
    assert kept.context["shared"] == {"language": "es"}


@pytest.mark.parametrize(
    "query",
    [
        {"_id": "s3", "version": 1},
        {"open_phone": "local|3"},
        {"updated_at": {"$gte": START, "$lt": START + dt.timedelta(seconds=5)}},
    ],
)
def test_a_query_answers_with_its_index_as_without(engine, query):
    documents = [
        {"_id": f"s{n}", "version": n % 2, "updated_at": START + dt.timedelta(seconds=n)}
        | ({"open_phone": f"local|{n}"} if n % 3 == 0 else {})
        for n in range(12)
    ]
    answers = []
    for name in ("sessions", "plain"):
        engine.database[name].insert_many(documents)
        answers.append(sorted(found["_id"] for found in engine.database[name].find(query)))
    assert answers[0] == answers[1] != []


def test_an_unknown_session_is_said(sessions):
    with pytest.raises(NotFound):
        sessions.get("nobody")
