"""Syncs, conflicts and imports over HTTP: for the operator only."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.app import create_app

TOKEN, KEY = "operator-token-0123456789", "key-of-the-web-0123456789"
STOCK = """
syncs:
  stock:
    source: {type: file, path: stock.csv}
    target: {type: records, dataset: stock}
    key: sku
    columns:
      sku: {from: Código}
      price: {from: Precio, type: decimal}
      name: {from: Nombre}
    conflicts: ask
"""


@pytest.fixture
def office(office_of: Callable[..., Any]) -> Iterator[Any]:
    """With a worker that runs meanwhile."""
    office = office_of(STOCK, operator_token=SecretStr(TOKEN), client_keys=SecretStr(f"web:{KEY}"))
    workers = office.workers()
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(0.02):
            workers.work()

    worker = threading.Thread(target=run)
    worker.start()
    yield office
    stopped.set()
    worker.join()


@pytest.fixture
def door(office: Any) -> FlaskClient:
    client = create_app(office.desk.engine).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


def test_a_sync_is_run_and_looked_at(office: Any, door: FlaskClient) -> None:
    office.stock(("a", "A", "1"), ("b", "B", "much"))
    dry = door.post("/api/syncs/stock/runs", json={"dry_run": True})
    assert (dry.status_code, dry.json["counts"]["inserted"]) == (200, 1)
    assert dry.json["changes"][0]["key"] == "a"
    assert office.records() == {}
    key = {"Idempotency-Key": '"k"'}
    run = door.post("/api/syncs/stock/runs", json={}, headers=key).json
    again = door.post("/api/syncs/stock/runs", json={}, headers=key).json
    assert run == again
    assert (run["state"], run["counts"]["wrong"], run["wrong"][0]["row"]) == ("done", 1, 3)
    assert door.get(f"/api/syncs/stock/runs/{run['id']}").json == run
    listed = door.get("/api/syncs/stock/runs?page_size=1")
    assert [each["id"] for each in listed.json["runs"]] == [run["id"]]
    assert listed.headers["Link"].endswith('rel="next"')
    (sync,) = door.get("/api/syncs").json["syncs"]
    assert (sync["id"], sync["last"]["run"], sync["active"]) == ("stock", run["id"], None)
    assert door.get("/api/syncs/stock").json == sync


def test_a_run_that_cannot_be_done_is_told_with_its_reason(door: FlaskClient) -> None:
    run = door.post("/api/syncs/stock/runs", json={}).json
    assert (run["state"], run["reason"]["code"]) == ("failed", "file_not_found")
    assert door.get("/api/syncs/stock/runs?state=failed").json["runs"][0]["id"] == run["id"]


def test_a_conflict_is_decided(office: Any, door: FlaskClient) -> None:
    office.stock(("a", "A", "1"))
    door.post("/api/syncs/stock/runs", json={})
    office.syncs.records.put("stock", {"a": {"price": "5"}})
    office.stock(("a", "A", "2"))
    door.post("/api/syncs/stock/runs", json={})
    (conflict,) = door.get("/api/syncs/stock/conflicts?state=open").json["conflicts"]
    path = f"/api/syncs/stock/conflicts/{conflict['id']}/resolve"
    decided = door.post(path, json={"winner": "source"})
    assert (decided.json["state"], decided.json["by"]) == ("decided", "operator")
    assert office.records()["a"]["price"] == "2"
    assert door.post(path, json={"winner": "target"}).status_code == 409
    assert door.post(path, json={"winner": "nobody"}).status_code == 422


def test_an_import_is_let_in_and_a_version_restored(office: Any, door: FlaskClient) -> None:
    content = "id,base_price_per_m2\nisodec,1500"
    office.desk.ask("import_catalogue", {"format": "csv", "content": content})
    (held,) = door.get("/api/catalogue/imports?state=held").json["imports"]
    assert held["doubts"][0]["code"] == "price_moved"
    assert door.get(f"/api/catalogue/imports/{held['id']}").json == held
    path = f"/api/catalogue/imports/{held['id']}/decide"
    let_in = door.post(path, json={"decision": "approve"}).json
    assert (let_in["state"], let_in["version"], let_in["by"]) == ("published", 2, "operator")
    assert door.post(path, json={"decision": "reject"}).status_code == 409
    restored = door.post("/api/catalogue/versions/1/restore").json
    assert (restored["version"], restored["restored"]) == (3, 1)
    versions = door.get("/api/catalogue/versions").json
    assert (versions["current"], len(versions["versions"])) == (3, 3)
    acts = [act["action"] for act in office.desk.engine.audit.page(10)[0]]
    assert acts[-3:].count("catalogue.approve") + acts[-3:].count("catalogue.restore") >= 1


@pytest.mark.parametrize(
    "path",
    [
        "/api/syncs/nothing",
        "/api/syncs/nothing/runs",
        "/api/syncs/stock/runs/nothing",
        "/api/catalogue/imports/nothing",
    ],
)
def test_what_is_not_there_is_not_found(door: FlaskClient, path: str) -> None:
    assert door.get(path).status_code == 404


def test_only_the_operator_may(door: FlaskClient) -> None:
    client = {"Authorization": f"Bearer {KEY}"}
    for path in ("/api/syncs", "/api/catalogue/imports", "/api/catalogue/versions"):
        assert door.get(path, headers=client).status_code == 403
    assert door.post("/api/syncs/stock/runs", json={}, headers=client).status_code == 403
    assert door.post("/api/catalogue/versions/99/restore").status_code == 404


def test_those_who_watch_the_task_see_how_far_it_is(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.data_sync import syncs

    monkeypatch.setattr(syncs, "PROGRESS_S", 0.0)
    office.stock(*((f"k{n}", "x", "1") for n in range(600)))
    engine = office.desk.engine
    task = engine.replies.wait(office.desk.accept("run_sync", {"sync": "stock"}).id, 30)
    told = [event for event in task.timeline if event["event"] == "progress"]
    assert [event["rows"] for event in told] == [0, 500, 600]
