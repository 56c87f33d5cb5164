"""Sessions: who joins which, the commit point of a turn, messages, contexts, and persons."""

import contextlib
import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from orchestrator.context import Burst, Message, Session, Sessions, Writer, ordering_key
from orchestrator.engine import Engine
from orchestrator.errors import (
    NotFound,
    SessionClosed,
    SessionNotTaken,
    SessionTaken,
    StaleAttempt,
    StaleContext,
    TaskError,
)
from orchestrator.tasks import Request, Task

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BOT = Writer("conversation_agent", frozenset({"language"}))
QUOTER = Writer("quote_agent", frozenset({"last_quote"}))
PHONE = "+59899000001"


@pytest.fixture
def sessions(engine) -> Sessions:
    return engine.sessions


def opened(sessions: Sessions, session_id=None, phone=None, caller="local", trusted=True):
    return sessions.open(session_id, phone, caller=caller, channel="web", trusted=trusted)


def say(engine: Engine, text: str = "hi", session_id: str = "s1") -> Task:
    """A customer's message, accepted."""
    request = Request("t", {"message": text}, ordering_key=ordering_key(session_id))
    return engine.store.accept(request, agent="a", queue="q", decision={}, epoch=0)[0]


def run_again(task: Task) -> Task:
    """As a later run of the task sees it."""
    return replace(task, fence=task.fence + 2)


def commit(sessions: Sessions, burst: Burst, text: str = "hello", **more):
    return sessions.commit(
        burst,
        writer=BOT,
        own={"said": text},
        shared={"language": "es"},
        reply={"text": text, "intent": "general"},
        **more,
    )


def answer(engine: Engine, task: Task, text: str = "hello") -> None:
    """A whole turn, as a worker does it."""
    commit(engine.sessions, engine.sessions.begin("s1", task), text)
    end(engine, task)


def end(engine: Engine, task: Task) -> None:
    engine.store.promote(task.key, 0)
    claim = engine.store.claim(task.id, engine.store.get(task.id).fence, "w")
    engine.store.finish(claim, {})


def transcript(sessions: Sessions, session_id: str = "s1") -> list[tuple[int, str, str]]:
    told = sessions.messages(sessions.get(session_id))
    return [(message.n, message.role, message.text) for message in told]


# -- joining -----------------------------------------------------------------------------


def test_a_session_goes_on_under_its_id(sessions):
    first = opened(sessions, "s1")
    assert opened(sessions, "s1").id == first.id == "s1"
    assert opened(sessions).id != opened(sessions).id


def test_a_known_session_with_another_phone_or_caller_is_a_new_one(sessions):
    opened(sessions, "s1", PHONE, trusted=False)
    assert opened(sessions, "s1", "+59899000002", trusted=False).id != "s1"
    assert opened(sessions, "s1", caller="client:web").id != "s1"


def test_a_trusted_phone_goes_on_in_its_open_session_and_others_do_not(sessions):
    first = opened(sessions, "s1", PHONE)
    assert opened(sessions, "s2", PHONE).id == first.id
    assert opened(sessions, "s3", PHONE, trusted=False).id == "s3"
    assert opened(sessions, "s4", PHONE, caller="client:web").id == "s4"


def test_a_phone_that_comes_many_times_at_once_has_one_session(sessions):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: opened(sessions, f"x{n}", PHONE), range(16)))
    assert len({session.id for session in found}) == 1


def test_a_closed_session_is_left_by_its_phone_and_opened_again_by_its_id(sessions):
    opened(sessions, "s1", PHONE)
    assert sessions.close("s1").status == "closed"
    second = opened(sessions, None, PHONE)
    assert second.id != "s1"
    assert opened(sessions, None, PHONE).id == second.id
    sessions.close(second.id)
    again = opened(sessions, "s1", PHONE)
    assert (again.id, again.status) == ("s1", "open")
    assert opened(sessions, None, PHONE).id == "s1"


def test_of_many_that_come_after_a_close_all_find_one_session(sessions):
    opened(sessions, "s1", PHONE)
    sessions.close("s1")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: opened(sessions, None, PHONE), range(16)))
    assert len({session.id for session in found}) == 1


# -- a turn ------------------------------------------------------------------------------


def test_a_turn_counts_once_however_often_it_runs(engine, sessions):
    opened(sessions, "s1")
    task = say(engine)
    burst = sessions.begin("s1", task)
    assert commit(sessions, burst, "first")["text"] == "first"
    assert commit(sessions, burst, "second")["text"] == "first"
    assert sessions.begin("s1", run_again(task)).reply["text"] == "first"
    assert sessions.get("s1").version == 1
    assert transcript(sessions) == [(1, "customer", "hi"), (2, "assistant", "first")]


def test_of_two_runs_of_a_turn_one_takes_effect(engine, sessions):
    opened(sessions, "s1")
    burst = sessions.begin("s1", say(engine))
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda n: commit(sessions, burst, f"run {n}")["text"], range(4)))
    assert len(set(replies)) == 1
    assert sessions.get("s1").version == 1


def test_a_turn_worked_out_from_an_older_version_is_refused(engine, sessions):
    opened(sessions, "s1")
    burst = sessions.begin("s1", say(engine))
    sessions.update(sessions.get("s1"), QUOTER, own={"draft": 1})
    with pytest.raises(StaleContext):
        commit(sessions, burst)
    commit(sessions, sessions.begin("s1", burst.task))


def test_a_run_that_was_given_up_for_dead_neither_begins_nor_commits(engine, sessions):
    opened(sessions, "s1")
    task = say(engine)
    zombie = sessions.begin("s1", task)
    later = sessions.begin("s1", run_again(task))
    with pytest.raises(StaleContext):
        commit(sessions, zombie, "zombie")
    with pytest.raises(StaleAttempt):
        sessions.begin("s1", task)
    assert commit(sessions, later, "alive")["text"] == "alive"


def test_a_message_that_later_ones_overtook_is_not_answered_any_more(engine, sessions):
    opened(sessions, "s1")
    first, second, third = say(engine), say(engine, "x" * 10_000), say(engine, "z" * 9_000)
    engine.store.cancel(first, {"code": "cancelled"})
    for task in (second, third):
        answer(engine, task)
    with pytest.raises(TaskError, match="Later messages"):
        sessions.begin("s1", first)


# -- messages that are answered together -------------------------------------------------


def test_messages_that_wait_are_understood_together_and_each_finds_the_reply(engine, sessions):
    opened(sessions, "s1")
    tasks = [say(engine, text) for text in ("isodec", "de 100", "para 10x5")]
    burst = sessions.begin("s1", tasks[0])
    assert burst.text == "isodec\nde 100\npara 10x5"
    commit(sessions, burst, "7500")
    late = say(engine, "gracias")
    for task in tasks:
        assert sessions.begin("s1", task).reply["text"] == "7500"
    assert sessions.begin("s1", late).text == "gracias"
    assert [text for _, _, text in transcript(sessions)] == [
        "isodec", "de 100", "para 10x5", "7500", "gracias",
    ]  # fmt: skip


def test_what_a_turn_answers_is_frozen_before_it_is_worked_out(engine, sessions):
    opened(sessions, "s1")
    first, second = say(engine, "one"), say(engine, "two")
    sessions.begin("s1", first)
    third = say(engine, "three")
    burst = sessions.begin("s1", run_again(first))
    assert burst.text == "one\ntwo"
    commit(sessions, burst)
    assert sessions.begin("s1", second).reply is not None
    assert sessions.begin("s1", third).text == "three"


def test_a_cancelled_message_is_not_understood_and_a_long_one_waits_for_its_turn(engine, sessions):
    opened(sessions, "s1")
    tasks = [say(engine, text) for text in ("one", "two", "three", "x" * 9_995, "five")]
    engine.store.cancel(tasks[1], {"code": "cancelled"})
    assert sessions.begin("s1", tasks[0]).text == "one\nthree"


def test_one_by_one_where_the_session_says_so(engine, sessions):
    opened(sessions, "s1")
    sessions.set_on_busy("s1", "enqueue")
    first, _ = say(engine, "one"), say(engine, "two")
    assert sessions.begin("s1", first).text == "one"


# -- what was said -----------------------------------------------------------------------


def test_what_was_accepted_is_told_before_anybody_answers(engine, sessions):
    opened(sessions, "s1")
    for text in ("one", "two"):
        say(engine, text)
    assert transcript(sessions) == [(1, "customer", "one"), (2, "customer", "two")]


def test_a_reply_whose_run_died_after_its_commit_is_told(engine, sessions):
    opened(sessions, "s1")
    answer(engine, say(engine, "one"), "first")
    engine.database["messages"].delete_one({"role": "assistant"})  # as if it had not got there
    answer(engine, say(engine, "two"), "second")
    assert [text for _, _, text in transcript(sessions)] == ["one", "first", "two", "second"]


@pytest.mark.parametrize("survivors", range(4))
def test_projecting_goes_on_wherever_it_died(engine, sessions, survivors):
    opened(sessions, "s1")
    for text in ("one", "two", "three"):
        say(engine, text)
    session = sessions.get("s1")
    sessions.project(session)
    engine.database["messages"].delete_many({"n": {"$gt": survivors}})
    say(engine, "four")
    assert transcript(sessions) == [
        (n, "customer", text) for n, text in enumerate(("one", "two", "three", "four"), 1)
    ]


def test_many_that_project_at_once_leave_none_out_and_double_none(engine, sessions):
    opened(sessions, "s1")
    with ThreadPoolExecutor(8) as pool:
        for n in range(24):
            pool.submit(say, engine, f"m{n}")
            pool.submit(transcript, sessions)
    told = sessions.messages(sessions.get("s1"))
    assert [message.n for message in told] == list(range(1, 25))
    in_order = sorted(engine.database["tasks"].find(), key=lambda task: task["seq"])
    assert [message.task_id for message in told] == [task["_id"] for task in in_order]


def test_messages_are_read_a_page_at_a_time(engine, sessions):
    opened(sessions, "s1")
    for n in range(7):
        say(engine, f"m{n}")
    session = sessions.get("s1")
    read: list[Message] = []
    while page := sessions.messages(session, after=len(read), limit=3):
        read += page
    assert [message.text for message in read] == [f"m{n}" for n in range(7)]


def test_messages_that_are_still_kept_are_found_though_the_oldest_are_gone(engine, sessions):
    opened(sessions, "s1")
    answer(engine, say(engine, "one"))
    answer(engine, say(engine, "two"))
    engine.database["messages"].delete_many({"n": {"$lt": 3}})
    told = sessions.messages(sessions.get("s1"), limit=1)
    assert [message.text for message in told] == ["two"]


# -- the context -------------------------------------------------------------------------


def test_an_agent_keeps_its_own_and_adds_to_what_is_shared(engine, sessions):
    opened(sessions, "s1")
    commit(sessions, sessions.begin("s1", say(engine)))
    kept = sessions.update(sessions.get("s1"), QUOTER, own={"d": 1}, shared={"last_quote": "C"})
    assert kept.of_agent("conversation_agent") == {"said": "hello"}
    assert kept.of_agent("quote_agent") == {"d": 1}
    assert kept.of_agent("followup_agent") == {}
    assert kept.context["shared"] == {"language": "es", "last_quote": "C"}


def test_an_agent_does_not_write_what_it_has_not_declared(engine, sessions):
    session = opened(sessions, "s1")
    with pytest.raises(TaskError) as refused:
        sessions.update(session, QUOTER, shared={"language": "en"})
    assert refused.value.task_code == "context_not_yours"
    burst = sessions.begin("s1", say(engine))
    with pytest.raises(TaskError):
        sessions.commit(burst, writer=QUOTER, reply={"text": "x"}, shared={"name": "Ana"})
    assert sessions.get("s1").version == 0


def test_a_context_has_a_limit(sessions):
    session = opened(sessions, "s1")
    with pytest.raises(TaskError) as refused:
        sessions.update(session, QUOTER, own={"d": "x" * 70_000})
    assert refused.value.task_code == "context_too_large"


def test_a_write_that_read_an_older_version_is_refused(sessions):
    session = opened(sessions, "s1")
    sessions.update(session, QUOTER, own={"d": 1})
    with pytest.raises(StaleContext):
        sessions.update(session, QUOTER, own={"d": 2})


def test_older_versions_are_kept_for_a_while(engine, sessions):
    session = opened(sessions, "s1")
    for n in range(3):
        session = sessions.update(session, QUOTER, own={"d": n})
    assert sessions.context_at(session, 3)["context"]["agents"] == {"quote_agent": {"d": 2}}
    assert sessions.context_at(session, 2)["context"]["agents"] == {"quote_agent": {"d": 1}}
    assert sessions.context_at(session, 0)["context"]["agents"] == {}
    for version in (-1, 4):
        with pytest.raises(NotFound):
            sessions.context_at(session, version)
    kept = engine.database["contexts"].find_one({"_id": "s1:2"})
    assert kept["expire_at"] > engine.clock.now()


# -- a person ----------------------------------------------------------------------------


def test_no_reply_commits_after_a_person_took_over(engine, sessions):
    opened(sessions, "s1")
    burst = sessions.begin("s1", say(engine))
    sessions.take("s1", "ana")
    with pytest.raises(StaleContext):
        commit(sessions, burst)
    with pytest.raises(StaleContext):
        commit(sessions, sessions.begin("s1", burst.task))
    assert [role for _, role, _ in transcript(sessions)] == ["customer"]


def test_while_a_person_has_the_session_messages_are_received_in_silence(engine, sessions):
    opened(sessions, "s1")
    sessions.take("s1", "ana")
    task = say(engine)
    burst = sessions.begin("s1", task)
    sessions.commit(burst, writer=BOT, reply={"text": ""})
    session = sessions.get("s1")
    assert (session.owner, session.waiting_since) == ("human", task.created_at)
    assert [waiting.id for waiting in sessions.waiting(10)] == ["s1"]
    sessions.reply_as_person("s1", "I am here", by="ana", key="k")
    assert sessions.waiting(10) == []
    assert transcript(sessions) == [(1, "customer", "hi"), (2, "person", "I am here")]


def test_a_reply_may_hand_over_to_a_person(engine, sessions):
    opened(sessions, "s1")
    commit(sessions, sessions.begin("s1", say(engine)), "a person will answer", hand_over=True)
    session = sessions.get("s1")
    assert (session.owner, session.taken_by) == ("human", None)
    assert session.waiting_since is not None
    assert sessions.take("s1", "ana").taken_by == "ana"


def test_a_persons_reply_is_said_once_and_only_by_who_has_the_session(sessions):
    opened(sessions, "s1")
    with pytest.raises(SessionNotTaken):
        sessions.reply_as_person("s1", "hello", by="ana", key="k1")
    sessions.take("s1", "ana")
    with pytest.raises(SessionTaken):
        sessions.take("s1", "bea")
    with pytest.raises(SessionTaken):
        sessions.reply_as_person("s1", "hello", by="bea", key="k1")
    with ThreadPoolExecutor(4) as pool:
        for key in ("k1", "k1", "k2", "k2"):
            pool.submit(sessions.reply_as_person, "s1", f"hello {key}", by="ana", key=key)
    sessions.reply_as_person("s1", "hello k1", by="ana", key="k1")
    assert sorted(text for _, _, text in transcript(sessions)) == ["hello k1", "hello k2"]


def test_the_bot_answers_again_once_it_is_given_back(engine, sessions):
    opened(sessions, "s1")
    sessions.take("s1", "ana")
    sessions.reply_as_person("s1", "I am here", by="ana", key="k1")
    assert sessions.give_back("s1").owner == "bot"
    assert sessions.give_back("s1").owner == "bot"
    answer(engine, say(engine), "the bot again")
    assert [role for _, role, _ in transcript(sessions)] == ["person", "customer", "assistant"]


def test_a_closed_session_is_not_taken(sessions):
    opened(sessions, "s1")
    sessions.close("s1")
    with pytest.raises(SessionClosed):
        sessions.take("s1", "ana")


def test_persons_and_turns_that_meet_lose_nothing(engine, sessions):
    """Turns commit while a person takes, replies and gives back; all that took effect is told."""
    opened(sessions, "s1")
    tasks = [say(engine, f"m{n}") for n in range(6)]

    def person() -> None:
        for n in range(6):
            with contextlib.suppress(StaleContext, SessionTaken, SessionNotTaken):
                sessions.take("s1", "ana")
                sessions.reply_as_person("s1", f"p{n}", by="ana", key=f"k{n}")
                sessions.give_back("s1")

    def bot() -> list[str]:
        said = []
        for task in tasks:
            with contextlib.suppress(StaleContext, TaskError):
                burst = sessions.begin("s1", task)
                if burst.reply is None:
                    commit(sessions, burst, f"a{task.seq}")
                    said.append(f"a{task.seq}")
        return said

    sessions.set_on_busy("s1", "enqueue")
    with ThreadPoolExecutor(2) as pool:
        acting, answering = pool.submit(person), pool.submit(bot)
        acting.result()
        said = answering.result()
    told = transcript(sessions)
    assert [n for n, _, _ in told] == list(range(1, len(told) + 1))
    assert [text for _, role, text in told if role == "customer"] == [f"m{n}" for n in range(6)]
    assert [text for _, role, text in told if role == "assistant"] == said
    assert [text for _, role, text in told if role == "person"] == [f"p{n}" for n in range(6)]


# -- queries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {"_id": "s3", "version": 1},
        {"_id": "s3", "version": 1, "mark": "m3"},
        {"open_phone": "local|3"},
        {"owner": "human", "waiting_since": {"$gt": START}},
        {"caller": "c1", "opened": {"$gte": "o2", "$lt": "o7"}},
        {"updated_at": {"$gte": START, "$lt": START + dt.timedelta(seconds=5)}},
    ],
)
def test_a_query_answers_with_its_index_as_without(engine, query):
    documents = [
        {
            "_id": f"s{n}",
            "version": n % 2,
            "mark": f"m{n}",
            "updated_at": START + dt.timedelta(seconds=n),
            "owner": "human" if n % 4 else "bot",
            "waiting_since": START + dt.timedelta(seconds=n) if n % 3 else None,
            "caller": f"c{n % 2}",
            "opened": f"o{n}",
        }
        | ({"open_phone": f"local|{n}"} if n % 3 == 0 else {})
        for n in range(12)
    ]
    answers = []
    for name in ("sessions", "plain"):
        engine.database[name].insert_many(documents)
        answers.append(sorted(found["_id"] for found in engine.database[name].find(query)))
    assert answers[0] == answers[1] != []


@pytest.mark.parametrize(
    "query",
    [
        {"session_id": "s1", "n": {"$gt": 1}},
        {"session_id": "s1", "n": {"$gt": 1, "$lt": 4}},
        {"source": "x3"},
    ],
)
def test_a_query_for_messages_answers_with_its_index_as_without(engine, query):
    documents = [
        {"_id": f"m{n}", "session_id": f"s{n % 2}", "n": n // 2, "source": f"x{n}"}
        for n in range(12)
    ]
    answers = []
    for name in ("messages", "plain"):
        engine.database[name].insert_many(documents)
        answers.append(sorted(found["_id"] for found in engine.database[name].find(query)))
    assert answers[0] == answers[1] != []


def test_an_unknown_session_is_said(sessions):
    for read in (sessions.get, sessions.give_back, sessions.close):
        with pytest.raises(NotFound):
            read("nobody")


def test_sessions_are_listed_the_newest_first_a_page_at_a_time(sessions):
    for n in range(5):
        opened(sessions, f"s{n}", caller="client:web" if n % 2 else "local")
    sessions.take("s1", "ana")

    def listed(**asked: str) -> list[str]:
        found: list[Session] = []
        position = None
        while True:
            page, position = sessions.listed(limit=2, position=position, **asked)
            found += page
            if position is None:
                return [session.id for session in found]

    assert listed() == ["s4", "s3", "s2", "s1", "s0"]
    assert listed(caller="client:web") == ["s3", "s1"]
    assert listed(caller="client:web", owner="human") == ["s1"]
    assert listed(status="closed") == []
    with pytest.raises(ValueError, match=r"."):
        sessions.listed(limit=2, position="nothing of ours")


def test_a_customer_is_known_again_in_the_next_session_by_a_trusted_phone_only(sessions):
    first = opened(sessions, "first", PHONE)
    assert sessions.earlier_of(first) is None
    sessions.close(first.id)
    claimed = opened(sessions, "claimed", PHONE, trusted=False)
    assert sessions.earlier_of(claimed) is None
    elsewhere = opened(sessions, "elsewhere", PHONE, caller="another")
    assert sessions.earlier_of(elsewhere) is None
    again = opened(sessions, "again", PHONE)
    found = sessions.earlier_of(again)
    assert found is not None
    assert found.id == first.id


# -- how long they are kept ----------------------------------------------------------------


def test_a_session_that_nobody_touches_goes_with_its_messages_and_no_other(engine, sessions):
    opened(sessions, "s1")
    answer(engine, say(engine))
    assert len(transcript(sessions)) == 2
    kept = dt.timedelta(days=engine.settings.session_retention_days)
    engine.clock.observe(engine.clock.now() + kept - dt.timedelta(hours=1))
    assert sessions.let_go(10) == 0
    opened(sessions, "s2")
    engine.clock.observe(engine.clock.now() + dt.timedelta(hours=2))
    assert sessions.let_go(10) == 1
    left = {
        name: [document["_id"] for document in engine.database[name].find()]
        for name in ("sessions", "messages", "contexts")
    }
    assert left == {"sessions": ["s2"], "messages": [], "contexts": []}
