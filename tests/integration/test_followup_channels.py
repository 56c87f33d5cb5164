"""How a follow-up reaches its customer: WhatsApp, n8n, the page; and when it must not."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from outside_world import GraphApi, WebhookReceiver, World

from agents.followup.agent import agent
from agents.stores import stores_of
from orchestrator.engine import Engine
from orchestrator.outbox import EntryState
from orchestrator.settings import Settings
from tests.integration.followup_desk import FollowupDesk

PHONE = "+59899123456"
RULES = """
spread: 0s
rules:
  - {id: idle, on: conversation_idle, after: 20h, message: conversation_idle}
  - {id: unanswered, on: quote_sent, after: 20h, message: quote_sent}
"""


class Killed(BaseException):
    """The sender's process ends."""


@pytest.fixture
def worlds(request: Any) -> Iterator[dict[str, World]]:
    """The servers that a test is marked with, by name."""
    made = {"whatsapp": GraphApi, "n8n": WebhookReceiver}
    running = {name: made[name]() for name in getattr(request, "param", ())}
    for world in running.values():
        world.start()
    yield running
    for world in running.values():
        world.stop()


@pytest.fixture
def settings(settings: Settings, worlds: dict[str, World], tmp_path: Any) -> Settings:
    (tmp_path / "rules.yaml").write_text(RULES)
    told: dict[str, Any] = {
        "followups_file": tmp_path / "rules.yaml",
        "business_hours": "mon-sun 00:00-24:00",
        "business_country": None,
        "whatsapp_templates": "quote_sent=quote_reminder",
    }
    for world in worlds.values():
        told |= world.settings
    return Settings(**settings.model_dump() | told)


@pytest.fixture
def desk(engine: Engine, workers: Callable[..., Any]) -> Iterator[FollowupDesk]:
    yield FollowupDesk(engine, workers(agent))
    stores_of(engine).outside.close()


def silent(desk: FollowupDesk, advance: Callable[[float], None], hours: float) -> None:
    """A customer of WhatsApp who wrote last so long ago."""
    desk.engine.contacts.heard_from(PHONE, "whatsapp", desk.now)
    advance(hours * 3600)


def passes(desk: FollowupDesk) -> None:
    desk.ask("find_due_followups")
    desk.tick()


@pytest.mark.parametrize("worlds", [["whatsapp"]], indirect=True)
def test_within_a_day_whatsapp_takes_it_as_it_is(
    desk: FollowupDesk, worlds: dict[str, Any], advance: Callable[[float], None]
) -> None:
    desk.said("s1", "pregunta", phone=PHONE, channel="whatsapp", name="Ana")
    silent(desk, advance, 21)
    passes(desk)
    (text,) = worlds["whatsapp"].said()
    assert text == desk.spoken("s1")[-1][1]
    assert text.startswith("Hola Ana. Quedamos a mitad de camino")


@pytest.mark.parametrize("worlds", [["whatsapp"]], indirect=True)
def test_after_a_day_it_takes_a_template_with_the_name_and_the_quote(
    desk: FollowupDesk, worlds: dict[str, Any], advance: Callable[[float], None]
) -> None:
    desk.said("s1", "cotizacion", phone=PHONE, channel="whatsapp", name="Ana")
    code = desk.quoted("s1").code
    silent(desk, advance, 30)
    passes(desk)
    (message,) = worlds["whatsapp"].taken
    assert message["template"]["name"] == "quote_reminder"
    parameters = message["template"]["components"][0]["parameters"]
    assert [each["text"] for each in parameters] == ["Ana", code]


@pytest.mark.parametrize("worlds", [["whatsapp"]], indirect=True)
def test_where_it_would_take_a_template_only_and_there_is_none_nothing_is_said(
    desk: FollowupDesk, worlds: dict[str, Any], advance: Callable[[float], None]
) -> None:
    desk.said("s1", "pregunta", phone=PHONE, channel="whatsapp")
    silent(desk, advance, 30)
    (look,) = desk.ask("find_due_followups", {"dry_run": True})["followups"]
    assert (look["verdict"], look["code"]) == ("skip", "no_template")
    passes(desk)
    assert (worlds["whatsapp"].taken, desk.followups()) == ([], [])


@pytest.mark.parametrize("worlds", [["n8n"]], indirect=True)
def test_where_whatsapp_is_not_set_up_n8n_is_told_whom_to_write_to_what(
    desk: FollowupDesk, worlds: dict[str, Any]
) -> None:
    desk.said("s1", "pregunta", phone=PHONE, channel="whatsapp")
    # The receiver heeds the time of a signature: it is the conversation that is old.
    ago = desk.now - dt.timedelta(hours=30)
    desk.engine.database["sessions"].update_one(
        {"_id": "s1"}, {"$set": {"updated_at": ago, "active_at": ago}}
    )
    passes(desk)
    (event,) = worlds["n8n"].taken
    (followup,) = desk.followups()
    assert event["data"]["phone"] == PHONE
    assert event["data"]["text"] == desk.spoken("s1")[-1][1]
    about = {"id": followup["_id"], "rule": "idle", "kind": "conversation_idle"}
    assert event["data"]["follow_up"] == about


def test_a_customer_of_whatsapp_whom_nothing_reaches_is_not_written_to(
    desk: FollowupDesk, advance: Callable[[float], None]
) -> None:
    desk.said("s1", "pregunta", phone=PHONE, channel="whatsapp")
    silent(desk, advance, 21)
    (look,) = desk.ask("find_due_followups", {"dry_run": True})["followups"]
    assert (look["verdict"], look["code"]) == ("skip", "no_way_out")


@pytest.mark.parametrize("worlds", [["n8n"]], indirect=True)
@pytest.mark.parametrize("happens", ["opted out", "taken over"])
def test_what_was_said_and_has_not_left_heeds_what_happens_then(
    desk: FollowupDesk, worlds: dict[str, Any], advance: Callable[[float], None], happens: str
) -> None:
    desk.said("s1", "pregunta")
    advance(21 * 3600)
    desk.accept("find_due_followups")
    while not desk.followups(state="sent"):
        assert desk.workers.work(1)
    if happens == "opted out":
        desk.engine.contacts.opt_out(desk.engine.sessions.get("s1").address)
    else:
        desk.engine.sessions.take("s1", "ana")
    desk.tick()
    assert worlds["n8n"].taken == []
    (followup,) = desk.followups()
    assert desk.engine.outbox.get(followup["entries"][0]).state is EntryState.DROPPED
    advance(8 * 86_400)
    desk.tick()
    assert desk.followups()[0]["counts"]["not_delivered"] == 1


@pytest.mark.parametrize("worlds", [["whatsapp"]], indirect=True)
def test_a_sender_that_dies_leaves_it_uncertain_and_it_is_never_said_again(
    desk: FollowupDesk,
    worlds: dict[str, Any],
    advance: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk.said("s1", "pregunta", phone=PHONE, channel="whatsapp")
    silent(desk, advance, 21)
    channel = stores_of(desk.engine).channels["whatsapp"]
    send = channel.send

    def dies(entry: Any) -> Any:
        send(entry)
        raise Killed

    desk.accept("find_due_followups")
    while not desk.followups(state="sent"):
        assert desk.workers.work(1)
    (entry,) = desk.followups()[0]["entries"]
    with monkeypatch.context() as patched:
        patched.setattr(channel, "send", dies)
        with pytest.raises(Killed):
            desk.engine.outbox.deliver(entry, 0, channel)
    desk.tick()
    assert desk.engine.outbox.get(entry).state is EntryState.UNCERTAIN
    assert len(worlds["whatsapp"].taken) == 1
