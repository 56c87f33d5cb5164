"""A sync goes on where it was, writes nothing twice, and says what it did."""

from collections.abc import Callable
from typing import Any

import pytest

from agents.catalogue import CatalogueStore
from agents.data_sync.agent import open_office
from agents.data_sync.definitions import DefinitionsInvalid, parse_definitions
from agents.data_sync.files import FileSource
from agents.data_sync.store import Records, SyncStore
from orchestrator.errors import BadSettings, RetryLater, TaskError

STOCK = """
syncs:
  stock:
    source: {type: file, path: stock.csv}
    target: {type: records, dataset: stock}
    key: sku
    columns:
      sku: {from: Código}
      price: {from: Precio, type: decimal, decimal_comma: true, at_least: 0}
      name: {from: Nombre, required: true, max_chars: 20}
"""
PRODUCTS = """
syncs:
  products:
    source: {type: file, path: products.csv}
    target: {type: catalogue}
    key: id
    columns:
      id: {}
      base_price_per_m2: {from: price, type: decimal}
      name_es: {}
      name_en: {}
      thicknesses_mm: {type: list}
      description_es: {}
      description_en: {}
"""


@pytest.fixture
def office(office_of: Callable[..., Any]) -> Any:
    return office_of(STOCK)


def counts(report: Any) -> dict[str, int]:
    return {name: count for name, count in report["counts"].items() if count}


def test_the_right_rows_go_in_and_the_wrong_ones_are_reported(office: Any) -> None:
    office.stock(("a", "Ñandú", "1.234,50"), ("b", "", "gratis"), ("", "x", "1"), ("a", "y", "2"))
    report = office.run()
    assert report["state"] == "done"
    assert counts(report) == {"rows": 4, "inserted": 1, "wrong": 3}
    assert report["wrong"] == [
        {
            "row": 3,
            "column": "Precio",
            "value": "gratis",
            "reason": "must be a number such as 1.234,50",
        },
        {"row": 3, "column": "Nombre", "value": "", "reason": "is missing"},
        {"row": 4, "column": "Código", "value": "", "reason": "is missing"},
        {
            "row": 5,
            "column": "Código",
            "value": "a",
            "reason": "comes more than once in the source",
        },
    ]
    assert office.records() == {"a": {"sku": "a", "name": "Ñandú", "price": "1234.5"}}


def test_a_second_run_has_only_what_is_new(office: Any) -> None:
    office.stock(("a", "A", "1"), ("b", "B", "2"))
    office.run()
    assert counts(office.run()) == {}
    office.stock(("a", "A", "1"), ("b", "B", "3"), ("c", "C", "4"))
    assert counts(office.run()) == {"rows": 3, "inserted": 1, "updated": 1, "unchanged": 1}
    assert office.records()["b"]["price"] == "3"


def test_a_dry_run_tells_the_difference_and_changes_nothing(office: Any) -> None:
    office.stock(("a", "A", "1"), ("b", "B", "2"))
    office.run()
    office.stock(("a", "A", "1,5"), ("b", "B", "2"), ("c", "C", "4"))
    report = office.run(dry_run=True)
    assert counts(report) == {"rows": 3, "inserted": 1, "updated": 1, "unchanged": 1}
    assert report["changes"] == [
        {"key": "a", "does": "updated", "fields": {"price": "1.5"}},
        {"key": "c", "does": "inserted", "fields": {"sku": "c", "price": "4", "name": "C"}},
    ]
    assert office.records()["a"]["price"] == "1"
    assert counts(office.run()) == {"rows": 3, "inserted": 1, "updated": 1, "unchanged": 1}


class Died(Exception):
    """As if the process were gone."""


STEPS = ["intend", "settle", "came", "page_done", "finish", "put"]


def dying(monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """Let the process die before the nth write of a sync."""
    left = {"n": nth}

    def wrap(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def step(self: Any, *args: Any, **more: Any) -> Any:
            left["n"] -= 1
            if left["n"] == 0:
                raise Died
            return real(self, *args, **more)

        monkeypatch.setattr(owner, name, step)

    for name in STEPS[:-1]:
        wrap(SyncStore, name)
    wrap(Records, "put")


def test_a_run_that_dies_anywhere_goes_on_and_doubles_nothing(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FileSource.__init__,
        "__kwdefaults__",
        {**FileSource.__init__.__kwdefaults__, "page_rows": 4},
    )
    deaths = range(1, 20)
    once = STOCK.removeprefix("\nsyncs:\n")
    office.define("syncs:\n" + "".join(once.replace("stock", f"s{nth}") for nth in deaths))
    died = 0
    for nth in deaths:
        name = f"s{nth}"
        rows = [(f"k{n}", f"N{n}", str(n)) for n in range(5)]
        office.stock(*rows, name=name)
        office.run(name)
        rows[1] = ("k1", "N1", "100")
        rows[4] = ("k4", "", "4")
        office.stock(*rows, ("k5", "N5", "5"), name=name)
        task = office.desk.accept("run_sync", {"sync": name})
        with monkeypatch.context() as patch:
            dying(patch, nth)
            try:
                office.desk.run(task)
            except Died:
                died += 1
        report = office.desk.run(task)
        assert report["state"] == "done", nth
        expected = {"rows": 6, "inserted": 1, "updated": 1, "unchanged": 3, "wrong": 1}
        assert (counts(report), len(report["wrong"])) == (expected, 1), nth
        assert {key: each["price"] for key, each in office.records(name).items()} == {
            "k0": "0", "k1": "100", "k2": "2", "k3": "3", "k4": "4", "k5": "5",
        }, nth  # fmt: skip
        # And the sync is free again, at the right place.
        assert counts(office.run(name)) == {}, nth
    # The last ones had nothing left to die at: every write of a run is among the others.
    assert 15 < died < len(deaths)


@pytest.mark.parametrize("nth", [5, 9])
def test_a_file_that_changes_during_a_run_is_read_anew(
    office: Any, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    monkeypatch.setattr(
        FileSource.__init__,
        "__kwdefaults__",
        {**FileSource.__init__.__kwdefaults__, "page_rows": 2},
    )
    office.stock(*((f"k{n}", "x", str(n)) for n in range(5)))
    task = office.desk.accept("run_sync", {"sync": "stock"})
    with monkeypatch.context() as patch:
        dying(patch, nth)
        with pytest.raises(Died):
            office.desk.run(task)
    office.stock(("k9", "x", "9"), ("k0", "x", "7"))
    report = office.desk.run(task)
    assert (report["state"], counts(report)["rows"], report["wrong"]) == ("done", 2, [])
    assert office.records()["k0"]["price"] == "7"
    assert office.records()["k9"]["price"] == "9"


def test_one_run_of_a_sync_at_a_time(office: Any) -> None:
    office.stock(("a", "A", "1"))
    first = office.desk.accept("run_sync", {"sync": "stock"})
    office.syncs.store.take("stock", first.id)
    second = office.desk.accept("run_sync", {"sync": "stock"})
    with pytest.raises(RetryLater):
        office.desk.run(second)
    office.desk.engine.coordinator.cancel(first.id)
    assert office.desk.run(second)["state"] == "done"


def test_an_unknown_sync_is_refused(office: Any) -> None:
    with pytest.raises(TaskError) as refused:
        office.run("nothing")
    assert refused.value.task_code == "no_such_sync"


def test_a_run_that_is_told_to_stop_stops_between_pages(office: Any) -> None:
    office.stock(*((f"k{n}", "x", str(n)) for n in range(1200)))
    task = office.desk.accept("run_sync", {"sync": "stock"})
    report = office.syncs.run(
        "stock", task.id, dry_run=False, full=False, confirmed=False, should_stop=lambda: True
    )
    assert (report["state"], report["counts"]["rows"]) == ("running", 0)
    assert office.desk.run(task)["counts"]["inserted"] == 1200


# --- Deletes ------------------------------------------------------------------------------


def test_rows_are_deleted_only_when_that_is_asked(office: Any) -> None:
    office.stock(*((f"k{n}", "x", "1") for n in range(10)))
    office.run()
    office.stock(*((f"k{n}", "x", "1") for n in range(9)))
    office.run()
    assert len(office.records()) == 10
    office.define(STOCK + "    deletes: true\n")
    assert counts(office.run(full=True)) == {"rows": 9, "unchanged": 9, "deleted": 1}
    assert "k9" not in office.records()


def test_a_row_that_is_wrong_is_not_gone(office: Any) -> None:
    office.define(STOCK + "    deletes: true\n")
    office.stock(*((f"k{n}", "x", "1") for n in range(10)))
    office.run()
    office.stock(*((f"k{n}", "x", "1") for n in range(9)), ("k9", "x", "much"))
    assert counts(office.run()) == {"rows": 10, "unchanged": 9, "wrong": 1}
    assert "k9" in office.records()


def test_half_a_file_deletes_nothing_without_a_person(office: Any) -> None:
    office.define(STOCK + "    deletes: true\n")
    office.stock(*((f"k{n}", "x", "1") for n in range(10)))
    office.run()
    office.stock(*((f"k{n}", "x", "1") for n in range(5)))
    report = office.run()
    assert (report["state"], report["reason"]["code"]) == ("held", "too_many_gone")
    assert len(office.records()) == 10
    assert counts(office.run(full=True, confirmed=True))["deleted"] == 5


# --- Conflicts ----------------------------------------------------------------------------


def test_a_conflict_waits_for_a_person_once_and_goes_as_they_say(office: Any) -> None:
    office.define(STOCK + "    conflicts: ask\n")
    office.stock(("a", "A", "1"), ("b", "B", "1"))
    office.run()
    ours = Records(office.desk.engine.database, office.desk.engine.clock)
    ours.put("stock", {"a": {"price": "5"}, "b": {"price": "5"}})
    office.stock(("a", "A", "2"), ("b", "B", "2"))
    assert counts(office.run()) == {"rows": 2, "asked": 2, "conflicts": 2}
    office.run(full=True)
    page, _ = office.desk.engine.resources.page("sync_conflicts", {"state": "open"}, 10)
    assert [(each["key"], each["fields"]) for each in sorted(page, key=lambda c: c["key"])] == [
        (key, {"price": {"agreed": "1", "source": "2", "target": "5"}}) for key in "ab"
    ]
    for each in page:
        winner = "source" if each["key"] == "a" else "target"
        office.desk.ask("resolve_sync_conflict", {"conflict_id": each["id"], "winner": winner})
    assert {key: each["price"] for key, each in office.records().items()} == {"a": "2", "b": "5"}
    assert counts(office.run(full=True)) == {"rows": 2, "unchanged": 1, "kept": 1}
    with pytest.raises(TaskError):
        office.desk.ask("resolve_sync_conflict", {"conflict_id": page[0]["id"], "winner": "source"})


def test_a_conflict_that_a_rule_decides_is_recorded(office: Any) -> None:
    office.stock(("a", "A", "1"))
    office.run()
    ours = Records(office.desk.engine.database, office.desk.engine.clock)
    ours.put("stock", {"a": {"price": "5"}})
    office.stock(("a", "A", "2"))
    assert counts(office.run()) == {"rows": 1, "updated": 1, "conflicts": 1}
    page, _ = office.desk.engine.resources.page("sync_conflicts", {"sync": "stock"}, 10)
    assert [(each["winner"], each["by"], each["state"]) for each in page] == [
        ("source", "rule", "decided")
    ]


# --- The catalogue ------------------------------------------------------------------------


def products(office: Any, *lines: str) -> None:
    header = "id,price,name_es,name_en,thicknesses_mm,description_es,description_en"
    (office.folder / "in" / "products.csv").write_text("\n".join([header, *lines]))


def new(n: int, price: str = "100") -> str:
    return f"new_{n},{price},Nuevo {n},New {n},50|100,Es nuevo,It is new"


def catalogue(office: Any) -> Any:
    return CatalogueStore(office.desk.engine.database).current()


def test_products_become_one_new_version(office: Any) -> None:
    office.define(PRODUCTS)
    products(office, "isodec,160.50,,,,,", new(1), new(2, "x"), "bad,5,,,,,")
    report = office.run("products")
    assert report["result"] == {"state": "published", "version": 2}
    assert [(each["row"], each["column"]) for each in report["wrong"]][:2] == [
        (4, "price"),
        (5, "name"),
    ]
    assert str(catalogue(office).product("isodec").base_price_per_m2) == "160.5"
    assert catalogue(office).product("new_1") is not None
    assert counts(office.run("products", full=True)).keys() <= {
        "rows",
        "unchanged",
        "inserted",
        "wrong",
    }
    assert catalogue(office).version == 2


def test_a_dry_run_finds_what_the_catalogue_would_not_take(office: Any) -> None:
    office.define(PRODUCTS)
    products(office, "isodec,160.50,,,,,", new(1), "bad,5,,,,,")
    dry = office.run("products", dry_run=True)
    assert dry["result"] == {"would_be": "published"}
    assert [each["key"] for each in dry["changes"]] == ["isodec", "new_1"]
    real = office.run("products")
    assert counts(dry) == counts(real) == {"rows": 3, "inserted": 1, "updated": 1, "wrong": 1}
    assert dry["wrong"] == real["wrong"]
    assert {each["row"] for each in dry["wrong"]} == {4}
    products(office, "bad,6,,,,,")
    assert {each["row"] for each in office.run("products")["wrong"]} == {2}
    again = office.run("products", dry_run=True, full=True)
    assert again["result"] == {"would_be": "unchanged"}


def test_a_dry_run_tells_that_an_import_would_wait_for_a_person(office: Any) -> None:
    office.define(PRODUCTS)
    products(office, "isodec,1505,,,,,")
    dry = office.run("products", dry_run=True)
    assert dry["state"] == "done"
    assert dry["result"]["would_be"] == "held"
    assert dry["result"]["doubts"][0]["code"] == "price_moved"
    assert office.desk.engine.resources.page("catalogue_imports", {"state": "held"}, 10)[0] == []


@pytest.mark.parametrize(
    ("line", "code"), [("isodec,1505,,,,,", "price_moved"), ("isodec,0,,,,,", "price_zero")]
)
def test_a_doubtful_import_waits_for_a_person(office: Any, line: str, code: str) -> None:
    office.define(PRODUCTS)
    products(office, line, new(1))
    report = office.run("products")
    assert (report["state"], report["reason"]["code"]) == ("held", "import_held")
    assert [each["code"] for each in report["reason"]["doubts"]] == [code]
    assert catalogue(office).version == 1
    held, _ = office.desk.engine.resources.page("catalogue_imports", {"state": "held"}, 10)
    assert [each["id"] for each in held] == [report["run_id"]]
    # Another import goes live meanwhile; it is not lost.
    office.desk.ask(
        "import_catalogue", {"format": "csv", "content": "id,base_price_per_m2\nlana_roca,141"}
    )
    done = office.desk.ask(
        "decide_catalogue_import", {"import_id": report["run_id"], "decision": "approve"}
    )
    assert (done["state"], done["version"]) == ("published", 3)
    assert str(catalogue(office).product("lana_roca").base_price_per_m2) == "141"
    assert catalogue(office).product("new_1") is not None
    with pytest.raises(TaskError):
        office.desk.ask(
            "decide_catalogue_import", {"import_id": report["run_id"], "decision": "reject"}
        )


def test_a_rejected_import_stays_out(office: Any) -> None:
    report = office.desk.ask(
        "import_catalogue", {"format": "csv", "content": "id,base_price_per_m2\nisodec,1"}
    )
    assert report["published"] is False
    assert [each["code"] for each in report["held"]] == ["price_moved"]
    held, _ = office.desk.engine.resources.page("catalogue_imports", {"state": "held"}, 10)
    office.desk.ask("decide_catalogue_import", {"import_id": held[0]["id"], "decision": "reject"})
    assert catalogue(office).version == 1
    with pytest.raises(TaskError):
        office.desk.ask(
            "decide_catalogue_import", {"import_id": held[0]["id"], "decision": "approve"}
        )


def test_half_the_products_gone_wait_for_a_person(office: Any) -> None:
    office.define(PRODUCTS + "    deletes: true\n    max_gone_pct: 100\n")
    products(office, *(new(n) for n in range(6)))
    office.run("products")
    products(office, new(0), new(1))
    report = office.run("products")
    assert report["state"] == "held"
    assert [each["code"] for each in report["reason"]["doubts"]] == ["products_gone"]
    assert len(catalogue(office).products) == 9
    office.desk.ask(
        "decide_catalogue_import", {"import_id": report["run_id"], "decision": "approve"}
    )
    assert len(catalogue(office).products) == 5


def test_any_version_can_be_put_in_force_again(office: Any) -> None:
    office.desk.ask(
        "import_catalogue", {"format": "csv", "content": "id,base_price_per_m2\nisodec,160"}
    )
    task = office.desk.accept("restore_catalogue", {"version": 1})
    done = office.desk.run(task)
    assert office.desk.run(task)["version"] == done["version"] == 3
    assert str(catalogue(office).product("isodec").base_price_per_m2) == "150"
    told = office.desk.ask("catalogue_versions", {})
    assert told["current"] == 3
    assert [each["version"] for each in told["versions"]] == [3, 2, 1]
    with pytest.raises(TaskError) as refused:
        office.desk.ask("restore_catalogue", {"version": 99})
    assert refused.value.task_code == "version_not_found"


def test_a_price_that_was_rolled_back_stays_until_the_source_changes(office: Any) -> None:
    office.define(PRODUCTS)
    products(office, "isodec,160,,,,,")
    office.run("products")
    office.desk.ask("restore_catalogue", {"version": 1})
    assert counts(office.run("products", full=True)) == {"rows": 1, "kept": 1}
    products(office, "isodec,170,,,,,")
    office.run("products")
    assert str(catalogue(office).product("isodec").base_price_per_m2) == "170"


# --- The settings file --------------------------------------------------------------------


def test_a_schedule_is_a_timer_and_goes_with_it(office: Any) -> None:
    office.define(STOCK + '    schedule: "0 6 * * mon-fri"\n')
    timer = office.desk.engine.timers.get("sync/stock")
    assert (timer.cron, timer.request.type, timer.request.payload) == (
        "0 6 * * mon-fri",
        "run_sync",
        {"sync": "stock"},
    )
    shown = office.desk.engine.resources.get("syncs", "stock")
    assert (shown["source"], shown["target"], shown["schedule"]) == (
        "file",
        "records",
        "0 6 * * mon-fri",
    )
    office.define(STOCK)
    assert office.desk.engine.timers.names("sync/") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("syncs:\n  a: [", "s.yaml:3: is not YAML"),
        ("syncs:\n  a: {source: {type: file, path: x}}", "s.yaml:2: syncs.a.target"),
        (STOCK + "    key: nothing\n", "s.yaml"),
        (STOCK.replace("key: sku", "key: nothing"), "columns must have the key"),
        (STOCK + '    schedule: "every day"\n', "schedule: must be in cron form"),
        (STOCK.replace("path: stock.csv", "path: stock.csv, x: 1"), "s.yaml:4: syncs.stock.source"),
        (STOCK.replace("records, dataset: stock", "file, path: a.csv"), "file cannot be written"),
        (PRODUCTS.replace("id: {}", "id: {}\n      colour: {}"), "a catalogue has the key id"),
        ("a: &x [1]\nb: *x", "has YAML aliases"),
    ],
)
def test_a_wrong_settings_file_is_told_with_its_lines(text: str, fault: str) -> None:
    with pytest.raises(DefinitionsInvalid) as invalid:
        parse_definitions(text, "s.yaml")
    assert fault in str(invalid.value)


def test_a_worker_does_not_start_with_a_wrong_settings_file(office: Any) -> None:
    with pytest.raises(BadSettings):
        office.define("syncs: 5")


def test_a_process_without_the_file_leaves_what_others_have_declared(office: Any) -> None:
    office.define(STOCK + '    schedule: "0 6 * * *"\n')
    engine = office.desk.engine
    engine.settings = engine.settings.model_copy(update={"syncs_file": None})
    open_office(engine)
    assert engine.timers.names("sync/") == ["sync/stock"]
    assert engine.resources.get("syncs", "stock")["schedule"] == "0 6 * * *"
