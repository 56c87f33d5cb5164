"""Lists, a page at a time: complete, in order, by an index, at a cost that does not grow."""

import datetime as dt
import itertools
import random

import pymongo
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from pydantic import SecretStr

from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.pages import COMPARED
from orchestrator.tasks import State, TaskFilter, id_at

NOW = dt.datetime.now(dt.UTC)
TOKEN = "operator-token-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


def task(at: dt.datetime, n: int, **more: object) -> dict:
    state = ["completed", "failed", "queued", "completed", "cancelled"][n % 5]
    document = {
        "_id": f"{id_at(at)}{n:020x}",
        "idempotency": f"i{n}",
        "type": f"type{n % 3}",
        "agent": f"agent{n % 2}",
        "queue": "q",
        "priority": "normal",
        "caller": "test",
        "state": state,
        "fence": 0,
        "created_at": at,
        "session_id": f"s{n % 7}",
    }
    if state == "failed":
        document["error"] = {"code": f"code{n % 2}"}
    return document | more


def read(engine: Engine, wanted: TaskFilter, size: int) -> list[str]:
    ids, position = [], None
    while True:
        tasks, position = engine.store.page(wanted, size, position)
        assert len(tasks) <= size
        ids += [task.id for task in tasks]
        if position is None:
            return ids


@pytest.fixture
def stored(engine) -> list[dict]:
    """Tasks of a year, some of them in a burst."""
    chance = random.Random(7)
    ages = [chance.uniform(0, 400 * 86_400) for _ in range(150)]
    ages += [chance.uniform(0, 5) for _ in range(150)]
    documents = [task(NOW - dt.timedelta(seconds=age), n) for n, age in enumerate(ages)]
    engine.database["tasks"].insert_many(documents)
    return documents


NAMES = {"state": "failed", "agent": "agent1", "type": "type2", "session_id": "s3"}
COMBINATIONS = [
    dict(chosen) for size in range(5) for chosen in itertools.combinations(NAMES.items(), size)
]


@pytest.mark.parametrize("filters", COMBINATIONS, ids=lambda filters: "+".join(filters) or "all")
def test_each_combination_is_complete_and_in_order(engine, stored, filters):
    for since in (None, NOW - dt.timedelta(days=100)):
        expected = sorted(
            (
                d["_id"]
                for d in stored
                if all(d[name] == value for name, value in filters.items())
                and (since is None or d["created_at"] >= since)
            ),
            reverse=True,
        )
        state = State(filters["state"]) if "state" in filters else None
        wanted = TaskFilter(**filters | {"state": state, "since": since})
        assert read(engine, wanted, 7) == expected


@given(size=strategies.integers(1, 200), code=strategies.sampled_from([None, "code0", "none"]))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
def test_pages_of_any_size_make_the_same_list(engine, stored, size, code):
    wanted = TaskFilter(state=State.FAILED, code=code)
    expected = [d for d in stored if d["state"] == "failed" and code in (None, d["error"]["code"])]
    assert read(engine, wanted, size) == sorted((d["_id"] for d in expected), reverse=True)


class Asked(pymongo.monitoring.CommandListener):
    """The filters of every find."""

    def __init__(self) -> None:
        self.filters: list[dict] = []

    def started(self, event):
        if event.command_name == "find":
            self.filters.append(dict(event.command["filter"]))

    def succeeded(self, event): ...

    def failed(self, event): ...


@pytest.mark.parametrize("filters", COMBINATIONS, ids=lambda filters: "+".join(filters) or "all")
def test_each_combination_uses_an_index_and_few_looks(engine, stored, filters):
    asked = Asked()
    state = State(filters["state"]) if "state" in filters else None
    with pymongo.MongoClient(
        engine.settings.mongodb_uri, event_listeners=[asked], tz_aware=True
    ) as client:
        watched = Engine(engine.settings)
        watched.store._tasks = client[engine.settings.mongodb_database]["tasks"]
        watched.store.page(TaskFilter(**filters | {"state": state}), 20)
        watched.close()
    assert 0 < len(asked.filters) <= 20
    for query in asked.filters:
        plan = engine.database["tasks"].find(query).explain()["queryPlanner"]["winningPlan"]
        assert "IXSCAN" in str(plan)
        assert "COLLSCAN" not in str(plan)


def test_a_page_compares_no_more_than_it_may(engine):
    many = [task(NOW - dt.timedelta(milliseconds=n), n, type="same") for n in range(COMPARED + 50)]
    many[-1] |= {"agent": "rare"}
    engine.database["tasks"].insert_many(many)
    wanted = TaskFilter(type="same", agent="rare")
    first, position = engine.store.page(wanted, 10)
    assert (first, position) == ([], many[COMPARED - 1]["_id"])
    second, position = engine.store.page(wanted, 10, position)
    assert ([found.id for found in second], position) == ([many[-1]["_id"]], None)


# -- over HTTP ---------------------------------------------------------------------------


@pytest.fixture
def door(settings, engine, stored):
    desk = Engine(settings.model_copy(update={"operator_token": SecretStr(TOKEN)}))
    yield create_app(desk).test_client()
    desk.close()


def test_links_lead_through_all_pages(door, stored):
    url, ids = "/api/tasks?state=failed&page_size=25", []
    while url:
        response = door.get(url, headers=OPERATOR)
        assert response.status_code == 200
        ids += [each["id"] for each in response.json["tasks"]]
        assert ("next_page_token" in response.json) == ("Link" in response.headers)
        link = response.headers.get("Link")
        url = link.removeprefix("<").removesuffix('>; rel="next"') if link else None
    failed = [d["_id"] for d in stored if d["state"] == "failed"]
    assert ids == sorted(failed, reverse=True)


def test_a_list_shows_neither_payload_nor_result(door):
    shown = door.get("/api/tasks?page_size=1", headers=OPERATOR).json["tasks"][0]
    assert {"payload", "result", "error"}.isdisjoint(shown)
    assert {"session_id", "error_code"} <= shown.keys()


@pytest.mark.parametrize(
    "query",
    [
        "page_size=0",
        "page_size=201",
        "page_token=",
        "page_token=x",
        "page_token=%ff",
        "page_token=W10",  # []
        "page_token=WyJ4IiwieSJd",  # of another list
        "state=gone",
        "since=yesterday",
        "since=2026-01-01T00:00:00",
        "agnet=quote_agent",
        "agent=",
    ],
)
def test_what_is_wrong_with_a_query_is_named(door, query):
    response = door.get(f"/api/tasks?{query}", headers=OPERATOR)
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == query.partition("=")[0]


def test_a_token_is_of_its_filters(door):
    token = door.get("/api/tasks?page_size=1", headers=OPERATOR).json["next_page_token"]
    assert door.get(f"/api/tasks?page_token={token}", headers=OPERATOR).status_code == 200
    other = door.get(f"/api/tasks?state=failed&page_token={token}", headers=OPERATOR)
    assert other.status_code == 422


def test_only_the_operator_lists_tasks(door):
    assert door.get("/api/tasks").status_code == 401
