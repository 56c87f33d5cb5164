"""Alerts: told when they begin and when they are over, once each, whoever dies in between."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from agents.analytics.agent import agent
from agents.analytics.anomalies import WATCHES
from agents.analytics.desk import AnalyticsDesk
from agents.analytics.desk import desk_of as analytics_of
from agents.analytics.rollup import HOUR, hour_of
from agents.analytics.tally import Tally
from agents.analytics.wording import Words
from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.tasks import Request

OPERATOR = {"Authorization": "Bearer operator-token-0123456789"}
HOOK = {"wants": "alerts", "channel": "webhook", "recipient": "https://owner.example/in"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    token = SecretStr("operator-token-0123456789")
    return settings.model_copy(update={"operator_token": token})


@pytest.fixture
def staff(workers: Callable[..., Any]) -> Any:
    return workers(agent)


@pytest.fixture
def analytics(staff: Any, engine: Engine) -> AnalyticsDesk:
    return analytics_of(engine)


def counted(engine: Engine, hour: dt.datetime, messages: int, slots: int = 10) -> None:
    """An hour as the roll-up leaves it."""
    tally = Tally()
    tally.count("messages", {"channel": "web"}, by=messages)
    engine.database["report_hours"].replace_one(
        {"_id": hour.strftime("%Y-%m-%dT%H")},
        {"tasks": tally.to_document(), "slots": {"quote_agent": {"0": slots}}},
        upsert=True,
    )


def five_weeks(engine: Engine, until: dt.datetime) -> None:
    for n in range(1, 5 * 7 * 24 + 1):
        hour = until - n * HOUR
        counted(engine, hour, 100 + n % 7)


def look(analytics: AnalyticsDesk, hour: dt.datetime) -> int:
    """As the first roll-up after an hour has ended."""
    return analytics.alerts.look(hour + HOUR, analytics._tell_later)


def told(engine: Engine) -> list[str]:
    entries = engine.database["outbox"].find({}).sort("listed", 1)
    return [entry["body"]["type"] for entry in entries]


def test_an_alert_begins_is_told_once_and_is_over(
    analytics: AnalyticsDesk, staff: Any, engine: Engine
) -> None:
    now = hour_of(engine.clock.now())
    five_weeks(engine, now)
    subscription = {name: value for name, value in HOOK.items()} | {"language": "en"}
    engine.coordinator.submit(_asked("subscribe_report", subscription))
    staff.work()
    assert look(analytics, now - HOUR) == 1
    assert analytics.alerts.open_ones() == []

    counted(engine, now, 0)
    look(analytics, now)
    [alert] = analytics.alerts.open_ones()
    assert (alert["watch"], alert["value"], alert["began_at"]) == ("messages", 0, now)
    assert 60 < alert["low"] < 100 < alert["expected"] < 110 < alert["high"] < 150
    assert alert["text"]["en"].startswith("Messages an hour: 0; usual is ")
    staff.work()
    assert told(engine) == ["alert.opened"]

    # As after a worker that died before it had written down how far it came.
    engine.database["report_progress"].update_one(
        {"_id": "alerts"}, {"$set": {"through": now - HOUR}}
    )
    counted(engine, now + HOUR, 0)
    assert look(analytics, now + HOUR) == 2
    staff.work()
    assert told(engine) == ["alert.opened"]
    assert len(analytics.alerts.open_ones()) == 1

    for n in (2, 3):
        counted(engine, now + n * HOUR, 103)
        look(analytics, now + n * HOUR)
    staff.work()
    assert analytics.alerts.open_ones() == []
    assert told(engine) == ["alert.opened", "alert.resolved"]
    listed = create_app(engine).test_client().get("/api/alerts?state=resolved", headers=OPERATOR)
    [shown] = listed.json["alerts"]
    assert dt.datetime.fromisoformat(shown["resolved_at"]) == now + 4 * HOUR


def _asked(task_type: str, payload: dict[str, Any]) -> Any:
    return Request(task_type, payload, caller="test")


def test_workers_that_are_gone_are_an_alert_of_their_agent(
    analytics: AnalyticsDesk, engine: Engine
) -> None:
    now = hour_of(engine.clock.now())
    five_weeks(engine, now)
    counted(engine, now, 103, slots=0)
    look(analytics, now)
    [alert] = analytics.alerts.open_ones()
    assert (alert["watch"], alert["part"], alert["look_at"]) == ("slots", "quote_agent", "workers")


def test_a_desk_that_was_away_is_caught_up_with_and_not_from_the_beginning(
    analytics: AnalyticsDesk, engine: Engine
) -> None:
    now = hour_of(engine.clock.now())
    assert look(analytics, now - 100 * HOUR) == 1
    assert look(analytics, now) == 48
    assert look(analytics, now) == 0


def test_alerts_are_the_operators_and_a_desk_without_any_has_none(engine: Engine) -> None:
    client = create_app(engine).test_client()
    assert client.get("/api/alerts").status_code == 401
    assert client.get("/api/alerts?state=open", headers=OPERATOR).json == {"alerts": []}
    assert client.get("/api/alerts?state=odd", headers=OPERATOR).status_code == 422


@pytest.mark.parametrize("language", ["es", "en"])
def test_every_watch_has_its_words(language: Any) -> None:
    words = Words(language)
    for watch in WATCHES:
        assert words.say(f"watch_{watch.name}", part="x")
        assert words.say(f"look_{watch.look_at}")
