"""The follow-up agent: finds who fell silent, writes to them once, and learns what came of it."""

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from agents.followup.agent import agent
from agents.followup.sending import Sending
from agents.stores import stores_of
from orchestrator.engine import Engine
from orchestrator.outbox import EntryState
from tests.integration.followup_desk import FollowupDesk

HOUR, DAY = 3600, 86_400
# Always open, and nothing spread: what is due goes out.
OPEN = """
caps: {per_customer: [{most: 1, within: 20h}]}
spread: 0s
rules:
  - {id: expiring, on: quote_expiring, before: 48h, message: quote_expiring, priority: 90}
  - {id: unanswered, on: quote_sent, after: 24h, message: quote_sent, priority: 70}
  - {id: waiting, on: quote_accepted, after: 48h, message: quote_accepted, priority: 60}
  - {id: idle, on: conversation_idle, after: 24h, message: conversation_idle, priority: 30,
     if: session.intent != 'general'}
"""


@pytest.fixture
def settings(settings: Any, tmp_path: Any) -> Any:
    (tmp_path / "rules.yaml").write_text(OPEN)
    always = {"business_hours": "mon-sun 00:00-24:00", "business_country": None}
    return settings.model_copy(update={"followups_file": tmp_path / "rules.yaml"} | always)


@pytest.fixture
def desk(engine: Engine, workers: Callable[..., Any]) -> FollowupDesk:
    return FollowupDesk(engine, workers(agent))


def passes(desk: FollowupDesk) -> Any:
    """Beat asks, and all that follows is done."""
    told = desk.ask("find_due_followups")
    desk.tick()
    return told


def test_a_quote_that_is_not_answered_is_asked_after_once(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    desk.said("s1", "cotizacion", name="Ana")
    quote = desk.quoted("s1")
    advance(23 * HOUR)
    assert passes(desk)["planned"] == 0
    advance(1.1 * HOUR)
    assert passes(desk)["planned"] == 1
    (followup,) = desk.followups()
    assert (followup["state"], followup["rule"], followup["quote_id"]) == (
        "sent",
        "unanswered",
        quote.id,
    )
    role, text = desk.spoken("s1")[-1]
    assert role == "assistant"
    assert text.startswith(f"Hola Ana. ¿Pudiste ver la cotización {quote.code} (Isodec 100 mm)?")
    entry = desk.engine.outbox.get(f"{followup['_id']}.followup.0")
    assert (entry.channel, entry.purpose, entry.state) == ("local", "follow_up", EntryState.SENT)
    # However often it is looked for, and however long it takes.
    for _ in range(3):
        advance(DAY)
        passes(desk)
    assert [role for role, _ in desk.spoken("s1")].count("assistant") == 2
    assert len(desk.followups()) == 1


def test_an_answer_is_tied_to_it_and_its_effect_is_counted(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    names = ("taken", "silent", "stopped", "turned")
    for n, name in enumerate(names):
        desk.said(name, "cotizacion", phone=f"+5989912340{n}")
    quotes = {name: desk.quoted(name) for name in names}
    advance(25 * HOUR)
    passes(desk)
    since = desk.now - dt.timedelta(hours=1)
    advance(HOUR)
    answer = desk.said("taken", "seguimiento", text="la acepto")
    stores_of(desk.engine).quotes.change(quotes["taken"].id, "accept")
    desk.said("turned", "seguimiento", text="no gracias")
    stores_of(desk.engine).quotes.change(quotes["turned"].id, "reject")
    desk.said("stopped", "general", text="no me escriban más")
    desk.engine.contacts.opt_out(desk.engine.sessions.get("stopped").address)
    desk.tick()
    advance(600)
    desk.tick()
    (taken,) = desk.followups(session_id="taken")
    assert (taken["state"], taken["answer"]["task_id"]) == ("done", answer)
    (silent,) = desk.followups(session_id="silent")
    assert silent["state"] == "sent"
    store = stores_of(desk.engine).followups
    (effect,) = store.effects(since, since + dt.timedelta(hours=2))
    assert (effect.rule, effect.sent, effect.open) == ("unanswered", 4, 1)
    assert (effect.answered, effect.accepted, effect.rejected, effect.opted_out) == (3, 1, 1, 1)
    # A week later it is known that nothing came of the other one.
    for _ in range(8):
        advance(DAY)
        desk.tick()
    assert desk.followups(session_id="silent")[0]["state"] == "done"
    (effect,) = store.effects(since, since + dt.timedelta(hours=2))
    assert (effect.open, effect.silent) == (0, 1)
    runs = desk.engine.database["runs"]
    ours = {"workflow": "followup_workflow", "state": "completed"}
    assert runs.count_documents(ours) == len(desk.followups())


def test_an_answer_that_came_before_anybody_waited_for_it_counts(
    desk: FollowupDesk, advance: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.said("s1", "cotizacion")
    desk.quoted("s1")
    advance(25 * HOUR)
    desk.accept("find_due_followups")
    runs = desk.engine.database["runs"]
    tasks = desk.engine.database["tasks"]
    while not tasks.count_documents({"type": "send_followup"}):
        assert desk.workers.work(1)
    with monkeypatch.context() as dead:
        # Said, and the worker dies before its run comes to wait for the answer.
        dead.setattr(desk.engine.coordinator, "advance_run", lambda run_id, ended: None)
        desk.work()
    assert desk.followups(state="sent")
    assert not desk.engine.database["run_waits"].count_documents({})
    answer = desk.said("s1", "seguimiento")
    for _ in range(3):
        advance(DAY)
        desk.tick()
    (followup,) = desk.followups()
    assert followup["answer"]["task_id"] == answer
    assert runs.count_documents({"state": "running"}) == 1


def test_the_reasons_not_to_write(desk: FollowupDesk, advance: Callable[[float], None]) -> None:
    for name in ("stopped", "taken_over", "closed", "chatty"):
        desk.said(name, "general" if name == "chatty" else "pregunta")
    engine = desk.engine
    engine.contacts.opt_out(engine.sessions.get("stopped").address)
    engine.sessions.take("taken_over", "ana")
    engine.sessions.close("closed")
    advance(25 * HOUR)
    told = desk.ask("find_due_followups", {"dry_run": True})["followups"]
    why = {each["session_id"]: (each["verdict"], each["code"]) for each in told}
    assert why == {
        "stopped": ("skip", "opted_out"),
        "taken_over": ("skip", "person_has_it"),
        "closed": ("skip", "session_closed"),
        "chatty": ("skip", "condition"),
    }
    assert passes(desk)["planned"] == 0
    assert desk.followups() == []
    # The person gives it back; a silence from then on is one.
    engine.sessions.give_back("taken_over")
    advance(25 * HOUR)
    assert passes(desk)["planned"] == 1
    assert desk.followups()[0]["session_id"] == "taken_over"


def test_a_dry_run_says_what_would_go_out_and_does_nothing(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    desk.said("s1", "cotizacion")
    quote = desk.quoted("s1")
    desk.said("s2", "pregunta", phone="+59899123456")
    advance(25 * HOUR)
    told = desk.ask("find_due_followups", {"dry_run": True})["followups"]
    assert [(each["session_id"], each["rule"], each["verdict"]) for each in told] == [
        ("s1", "unanswered", "send"),
        ("s2", "idle", "send"),
    ]
    assert told[0]["quote_code"] == quote.code
    assert told[0]["silent_h"] == 25.0
    assert desk.followups() == []
    passes(desk)
    told = desk.ask("find_due_followups", {"dry_run": True})["followups"]
    assert {each["code"] for each in told} == {"sent_already"}


def test_what_a_customer_does_before_it_goes_out_is_heeded(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    """Decided, then something happens, then it would be said."""
    engine = desk.engine
    happens: dict[str, Callable[[], Any]] = {
        "wrote": lambda: desk.said("wrote", "pregunta"),
        "taken": lambda: engine.sessions.take("taken", "ana"),
        "stopped": lambda: engine.contacts.opt_out(engine.sessions.get("stopped").address),
        "closed": lambda: engine.sessions.close("closed"),
    }
    for name in happens:
        desk.said(name, "pregunta")
    advance(25 * HOUR)
    desk.accept("find_due_followups")
    tasks = engine.database["tasks"]
    while tasks.count_documents({"type": "send_followup"}) < len(happens):
        # What was decided is written, and not yet said.
        sending = {"type": "send_followup", "state": "queued"}
        tasks.update_many(sending, {"$set": {"state": "held"}})
        assert desk.workers.work(1)
    tasks.update_many({"state": "held"}, {"$set": {"state": "queued"}})
    for happen in happens.values():
        happen()
    desk.tick()
    states = {each["session_id"]: each["why"]["code"] for each in desk.followups(state="skipped")}
    assert states == {
        "wrote": "customer_wrote",
        "taken": "person_has_it",
        "stopped": "opted_out",
        "closed": "session_closed",
    }
    for name in happens:
        assert [role for role, _ in desk.spoken(name)].count("assistant") <= 2
    assert engine.database["outbox"].count_documents({}) == 0


def test_a_quote_that_is_corrected_is_asked_after_by_its_newest_version(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    desk.said("s1", "cotizacion")
    desk.quoted("s1")
    advance(12 * HOUR)
    desk.said("s1", "cotizacion")
    newer = desk.quoted("s1")
    advance(13 * HOUR)
    assert passes(desk)["planned"] == 0
    advance(12 * HOUR)
    passes(desk)
    (followup,) = desk.followups()
    assert followup["quote_id"] == newer.id


def test_a_customer_is_not_written_to_more_often_than_the_caps_say(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    """Two conversations of one customer, both due: the more urgent goes, the other when it may."""
    phone = "+59899123456"
    desk.said("s1", "cotizacion", phone=phone)
    desk.quoted("s1", days=3)
    # As a client does that lets the customer begin anew.
    desk.engine.sessions.close("s1")
    desk.said("s2", "pregunta", phone=phone)
    desk.engine.database["sessions"].update_one({"_id": "s1"}, {"$set": {"status": "open"}})
    advance(26 * HOUR)
    for _ in range(8):
        passes(desk)
        advance(3 * HOUR)
    sent = sorted(desk.followups(state="sent"), key=lambda each: each["sent_at"])
    assert sent[0]["rule"] == "expiring"
    gaps = [b["sent_at"] - a["sent_at"] for a, b in itertools.pairwise(sent)]
    assert gaps
    assert all(gap >= dt.timedelta(hours=20) for gap in gaps)


def test_one_by_hand_goes_out_at_its_time_and_can_be_cancelled(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    desk.said("s1", "general", language="en", name="Bob")
    at = desk.now + dt.timedelta(hours=3)
    asked = {
        "session_id": "s1",
        "message": "custom",
        "text": "The gutters have arrived.",
        "at": at.isoformat(),
        "by": "operator",
    }
    first = desk.ask("schedule_followup", asked)
    other = desk.ask("schedule_followup", asked | {"message": "conversation_idle", "text": None})
    desk.tick()
    assert [each["state"] for each in desk.followups()] == ["planned", "planned"]
    cancelled = desk.ask("cancel_followup", {"followup_id": other["followup_id"]})
    assert cancelled["state"] == "cancelled"
    advance(2.9 * HOUR)
    desk.tick()
    assert desk.followups(state="sent") == []
    advance(0.2 * HOUR)
    desk.tick()
    assert [each["_id"] for each in desk.followups(state="sent")] == [first["followup_id"]]
    assert desk.spoken("s1")[-1] == ("assistant", "The gutters have arrived.")
    told = desk.ask("cancel_followup", {"followup_id": first["followup_id"]})
    assert told["state"] == "sent"


def test_what_cannot_be_scheduled(desk: FollowupDesk) -> None:
    desk.said("s1")
    for asked, code in (
        ({"session_id": "nobody", "message": "conversation_idle"}, "session_not_found"),
        ({"session_id": "s1", "message": "quote_sent"}, "no_quote"),
    ):
        task = desk.accept("schedule_followup", asked)
        desk.work()
        assert desk.engine.store.get(task.id).error["code"] == code
    task = desk.accept("cancel_followup", {"followup_id": "nobody"})
    desk.work()
    assert desk.engine.store.get(task.id).error["code"] == "followup_not_found"


def test_an_erased_customer_is_not_written_to_and_what_was_counted_stays(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    phone = "+59899123456"
    desk.said("s1", "cotizacion", phone=phone, name="Ana")
    desk.quoted("s1")
    advance(25 * HOUR)
    passes(desk)
    later = (desk.now + dt.timedelta(hours=30)).isoformat()
    asked = {"session_id": "s1", "message": "custom", "text": "Ana, llegó.", "at": later}
    desk.ask("schedule_followup", asked)
    desk.tick()
    customers = desk.engine.customers
    erasure = customers.erase(phone, by="ana")
    for _ in range(60):
        if erasure.state == "done":
            break
        advance(1)
        desk.tick()
        erasure = customers.advance(erasure.id)
    assert erasure.state == "done"
    advance(31 * HOUR)
    passes(desk)
    kept = desk.followups()
    assert [each["rule"] for each in kept] == ["unanswered", "by_hand"]
    for each in kept:
        gone = ("session_id", "customer", "text", "answer", "reason")
        assert all(each[name] is None for name in gone)
        assert "Ana" not in str(each)
    assert kept[1]["sent_at"] is None
    assert not desk.engine.database["messages"].count_documents({})
    since = desk.now - dt.timedelta(days=7)
    assert [each.sent for each in stores_of(desk.engine).followups.effects(since, desk.now)] == [1]


def test_what_is_found_is_found_in_bounded_pieces_and_all_of_it(
    desk: FollowupDesk, advance: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was touched in the same instant, and over a long time away."""
    sessions = desk.engine.database["sessions"]
    desk.said("s0", "pregunta")
    template = sessions.find_one({"_id": "s0"})
    assert template is not None
    then = desk.now
    made = []
    for n in range(1, 601):
        at = then if n < 450 else then + dt.timedelta(seconds=n)
        made.append(
            {**template, "_id": f"s{n}", "opened": f"{template['opened']}{n}"}
            | {"updated_at": at, "active_at": at, "created_at": at}
        )
    sessions.insert_many(made)
    advance(26 * HOUR)
    monkeypatch.setattr(Sending, "start", lambda *_: False)
    planned = []
    while told := Sending(desk.engine).find(100)["planned"]:
        planned.append(told)
    assert sum(planned) == 601
    assert len(planned) > 1


def test_a_message_is_written_from_what_is_known_of_the_session(desk: FollowupDesk) -> None:
    desk.said("s1", "cotizacion", name="Ana")
    code = desk.quoted("s1", language="en").code
    desk.engine.database["sessions"].update_one(
        {"_id": "s1"}, {"$set": {"context.shared": {"language": "en", "name": "Ana"}}}
    )
    written = desk.ask("generate_message", {"kind": "quote_sent", "session_id": "s1"})
    assert (written["language"], written["quote_code"]) == ("en", code)
    assert written["text"].startswith(f"Hello Ana. Did you have a chance to look at quote {code}")
    assert written["values"] == ["Ana", code]
    # The session knows better than the quote what is spoken now.
    desk.said("s1", "cotizacion", name="Ana María")
    written = desk.ask("generate_message", {"kind": "quote_expiring", "session_id": "s1"})
    assert written["text"].startswith(f"Hola Ana María. La cotización {code} está por vencer (el ")


def test_a_message_says_what_it_was_told(desk: FollowupDesk) -> None:
    asked = {"kind": "conversation_idle", "language": "en", "name": "Bob"}
    assert desk.ask("generate_message", asked)["text"].startswith("Hello Bob.")


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ({"kind": "quote_sent", "session_id": "nobody"}, ["quote_code"]),
        ({"kind": "custom"}, ["text"]),
    ],
)
def test_a_message_that_lacks_what_it_is_about_is_not_written(
    desk: FollowupDesk, asked: dict[str, Any], missing: list[str]
) -> None:
    task = desk.accept("generate_message", asked)
    desk.work()
    error = desk.engine.store.get(task.id).error
    assert (error["code"], error["facts"]) == ("message_incomplete", {"missing": missing})
