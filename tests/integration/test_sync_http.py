"""An API of others is read whole and written once, whatever it answers in between."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shops import JsonApi

from agents.data_sync.web import RefreshingToken
from orchestrator.errors import RetryLater, TaskError

SYNC = """
syncs:
  stock:
    source:
      type: http
      url: {url}
      items: {items}
      paging: {paging}
      oauth: {{token_url: {root}/token, client_id: desk, secret: api}}
      {more}
    target: {{type: records, dataset: stock}}
    key: id
    columns:
      id: {{}}
      price: {{from: prices.0.amount, type: decimal}}
"""
PAGINGS = {
    "offset": "{kind: offset, parameter: offset, size_parameter: size, size: 4}",
    "page": "{kind: page, parameter: page, size_parameter: size, size: 4}",
    "cursor": "{kind: cursor, parameter: after, next: meta.next, size_parameter: size, size: 4}",
    "link": "{kind: link, size_parameter: size, size: 4}",
}


@pytest.fixture
def api() -> Iterator[JsonApi]:
    api = JsonApi()
    api.start()
    api.rows = [row(n) for n in range(10)]
    yield api
    api.stop()


def row(n: int, amount: str = "1.50") -> dict[str, Any]:
    return {"id": f"k{n:02}", "prices": [{"amount": amount}], "updated": f"2026-11-{n + 1:02}"}


@pytest.fixture
def office(office_of: Callable[..., Any], api: JsonApi) -> Callable[..., Any]:
    def opened(kind: str = "cursor", more: str = "", hosts: str = "127.0.0.1") -> Any:
        paging = PAGINGS.get(kind, "{kind: none}")
        text = SYNC.format(
            url=f"{api.url}/{kind}",
            items='""' if kind == "all" else "data.rows",
            paging=paging,
            root=api.url,
            more=more,
        )
        secrets = json.dumps({"api": JsonApi.SECRET})
        return office_of(text, sync_secrets=secrets, http_allowed_hosts=hosts, http_timeout_s=2.0)

    return opened


def counts(report: Any) -> dict[str, int]:
    return {name: count for name, count in report["counts"].items() if count}


@pytest.mark.parametrize("kind", PAGINGS)
def test_every_way_of_paging_gives_every_row(office: Any, api: JsonApi, kind: str) -> None:
    desk = office(kind)
    assert counts(desk.run())["inserted"] == 10
    assert desk.records()["k03"] == {"id": "k03", "price": "1.5"}
    assert api.granted == 1
    assert counts(desk.run())["unchanged"] == 10


@pytest.mark.parametrize(
    ("kind", "fault"), [("offset", "429"), ("page", "500"), ("cursor", "502"), ("link", "cut")]
)
def test_a_fault_in_the_middle_costs_no_row_and_doubles_none(
    office: Any, api: JsonApi, kind: str, fault: str
) -> None:
    desk = office(kind)
    task = desk.desk.accept("run_sync", {"sync": "stock"})
    # The token's request, a page, and then the fault.
    api.faults = [None, None, fault]
    api.retry_after = "7"
    with pytest.raises(RetryLater) as later:
        desk.desk.run(task)
    assert later.value.after_s == (7.0 if fault == "429" else None)
    assert desk.desk.run(task)["counts"]["inserted"] == 10
    assert len(desk.records()) == 10


def test_a_token_that_expires_in_the_middle_is_renewed(office: Any, api: JsonApi) -> None:
    desk = office("cursor")
    api.faults = [None, None, "expire"]
    assert counts(desk.run()) == {"rows": 10, "inserted": 10}
    assert api.granted == 2


def test_credentials_that_are_wrong_end_the_run(
    office_of: Callable[..., Any], office: Any, api: JsonApi
) -> None:
    desk = office("cursor")
    api.SECRET = "another"  # type: ignore[misc]
    with pytest.raises(TaskError) as refused:
        desk.run()
    assert refused.value.task_code == "credentials_refused"
    run, _ = desk.desk.engine.resources.page("sync_runs", {"state": "failed"}, 1)
    assert run[0]["reason"]["code"] == "credentials_refused"
    assert JsonApi.SECRET not in json.dumps(run, default=str)


@pytest.mark.parametrize("moved", ["removed", "added"])
def test_rows_that_move_while_they_are_read_are_not_stepped_over(
    office: Any, api: JsonApi, moved: str
) -> None:
    desk = office("offset")

    def move() -> None:
        if moved == "removed":
            del api.rows[1:3]
        else:
            api.rows.insert(0, row(20))

    # While the second page is asked for.
    api.faults = [None, None, move]  # type: ignore[list-item]
    desk.run()
    assert {f"k{n:02}" for n in range(10)} <= desk.records().keys()


def test_a_list_that_has_not_changed_is_not_sent_again(office: Any, api: JsonApi) -> None:
    desk = office("all")
    assert counts(desk.run()) == {"rows": 10, "inserted": 10}
    assert counts(desk.run()) == {}
    assert api.asked("/all")[-1]["headers"]["if-none-match"]
    api.rows[0] = row(0, "2")
    assert counts(desk.run()) == {"rows": 10, "updated": 1, "unchanged": 9}


def test_only_what_changed_since_the_last_run_is_asked_for(office: Any, api: JsonApi) -> None:
    desk = office("cursor", more="changed_since: updated_min")
    desk.run()
    assert "updated_min" not in api.asked("/cursor")[0]["query"]
    api.rows = [row(1, "3") | {"updated": "2999-01-01"}, *api.rows]
    assert counts(desk.run()) == {"rows": 1, "updated": 1}
    # All of it where that is asked.
    assert counts(desk.run(full=True))["rows"] == 11


def test_rows_that_are_wrong_are_reported_and_the_others_go_in(office: Any, api: JsonApi) -> None:
    desk = office("cursor")
    api.rows[4] = row(4, "a lot")
    report = desk.run()
    assert counts(report) == {"rows": 10, "inserted": 9, "wrong": 1}
    assert report["wrong"] == [
        {
            "row": "page 2, row 1",
            "column": "prices.0.amount",
            "value": "a lot",
            "reason": "must be a number such as 1234.50",
        }
    ]


def test_a_host_that_is_not_on_the_list_is_not_asked(office: Any, api: JsonApi) -> None:
    desk = office("cursor", hosts="example.com")
    with pytest.raises(TaskError) as refused:
        desk.run()
    assert refused.value.task_code == "host_not_allowed"
    assert api.read == []


def test_a_link_to_another_host_is_not_followed(office: Any, api: JsonApi) -> None:
    desk = office("link")
    honest = api.meet

    def meet(request: Any) -> Any:
        status, body, headers = honest(request)
        return status, body, headers and {"Link": '<http://127.0.0.2:1/rows>; rel="next"'}

    api.meet = meet  # type: ignore[method-assign]
    with pytest.raises(TaskError) as refused:
        desk.run()
    assert refused.value.task_code == "source_unreadable"


def test_the_patience_of_a_run_ends(office: Any, api: JsonApi) -> None:
    desk = office("cursor")
    desk.define((desk.folder / "syncs.yaml").read_text() + "    patience_s: 0.001\n")
    api.faults = ["500"] * 9
    with pytest.raises(TaskError) as over:
        desk.run()
    assert over.value.task_code == "patience_over"
    api.faults = []
    assert desk.run()["state"] == "done"


OUT = """
syncs:
  prices:
    source: {{type: records, dataset: stock}}
    target: {{type: http, url: {url}/rows, write_url: "{url}/rows/{{key}}", secret: token}}
    key: id
    columns:
      id: {{}}
      price: {{type: decimal}}
    target_columns: {{price: amount}}
"""


def test_rows_go_out_once_and_a_refused_one_holds_up_none(
    office_of: Callable[..., Any], api: JsonApi
) -> None:
    desk = office_of(
        OUT.format(url=api.url),
        sync_secrets=json.dumps({"token": api.grant()}),
        http_allowed_hosts="127.0.0.1",
    )
    desk.syncs.records.put("stock", {f"k/{n}": {"id": f"k/{n}", "price": "1"} for n in range(3)})
    api.refused = {"k/1"}
    report = desk.run("prices")
    assert counts(report) == {"rows": 3, "inserted": 2, "refused": 1}
    assert report["wrong"] == [
        {"row": "k/1", "column": "", "value": "k/1", "reason": "was refused with 422"}
    ]
    assert api.put == {key: {"id": key, "amount": "1"} for key in ("k/0", "k/2")}
    desk.syncs.records.put("stock", {"k/0": {"price": "2"}})
    api.refused = set()
    assert counts(desk.run("prices")) == {"rows": 3, "inserted": 1, "updated": 1, "unchanged": 1}
    assert [each["path"] for each in api.taken] == [
        "/rows/k/0",
        "/rows/k/2",
        "/rows/k/0",
        "/rows/k/1",
    ]


def test_a_cut_connection_while_rows_go_out_is_made_good(
    office_of: Callable[..., Any], api: JsonApi
) -> None:
    desk = office_of(
        OUT.format(url=api.url),
        sync_secrets=json.dumps({"token": api.grant()}),
        http_allowed_hosts="127.0.0.1",
    )
    desk.syncs.records.put("stock", {f"k{n}": {"id": f"k{n}", "price": "1"} for n in range(3)})
    task = desk.desk.accept("run_sync", {"sync": "prices"})
    api.faults = [None, "cut"]
    with pytest.raises(RetryLater):
        desk.desk.run(task)
    assert counts(desk.desk.run(task)) == {"rows": 3, "inserted": 3}
    assert len(api.put) == 3


# --- Refresh tokens -----------------------------------------------------------------------


def test_a_refresh_token_is_used_once_and_its_follower_outlives_the_process(
    office_of: Callable[..., Any],
) -> None:
    from shops import MercadoLibre

    shop = MercadoLibre()
    shop.start()
    try:
        desk = office_of(http_allowed_hosts="127.0.0.1")

        def connection() -> RefreshingToken:
            return RefreshingToken(
                desk.syncs._outside,
                desk.desk.engine.clock.now,
                desk.syncs.store,
                url=f"{shop.url}/oauth/token",
                client_id=shop.CLIENT,
                secret=shop.SECRET,
                first="TG-first",
            )

        first = connection()
        assert first.token() == first.token() == "token-1"
        # Another process, or this one after its end, has no need to ask.
        second = connection()
        assert second.token() == "token-1"
        assert second.renew("token-1")
        assert second.token() == "token-2"
        assert first.renew("token-1")
        assert (first.token(), shop.granted) == ("token-2", 2)
        kept = str(list(desk.desk.engine.database["sync_tokens"].find()))
        assert "TG-" not in kept
        assert "token-2" not in kept
    finally:
        shop.stop()
