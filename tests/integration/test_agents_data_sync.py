"""The data sync agent: an import makes one version, loses no other's, and reports all."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from agents.catalogue import CatalogueStore, load_catalogue
from agents.data_sync.agent import agent
from agents.data_sync.versions import ImportedCatalogues
from orchestrator.errors import TaskError
from orchestrator.settings import Settings

PRICES = "id,base_price_per_m2\nisodec,160.50\nlana_roca,free\n"


@pytest.fixture
def desk(desk_of: Callable[..., Any]) -> Any:
    return desk_of(agent)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "imports").mkdir()
    return settings.model_copy(update={"import_dir": tmp_path / "imports"})


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    """The import folder, which lies beside a file that is nobody's business."""
    (tmp_path / "secret.csv").write_text(PRICES)
    return tmp_path / "imports"


def catalogues(desk: Any) -> CatalogueStore:
    return CatalogueStore(desk.engine.database)


def price(desk: Any, product: str) -> str:
    found = catalogues(desk).current().product(product)
    assert found is not None
    return str(found.base_price_per_m2)


def refusal(desk: Any, **payload: Any) -> str:
    with pytest.raises(TaskError) as refused:
        desk.ask("import_catalogue", {"format": "csv"} | payload)
    return refused.value.task_code


def test_the_right_rows_go_in_and_the_wrong_ones_are_reported(desk: Any) -> None:
    report = desk.ask("import_catalogue", {"format": "csv", "content": PRICES})
    assert report == {
        "dry_run": False,
        "rows": 2,
        "wrong_rows": 1,
        "wrong": [
            {
                "row": 3,
                "column": "base_price_per_m2",
                "reason": "must be a number above 0, with a decimal point, such as 149.90",
            }
        ],
        "changes": {
            "products_added": [],
            "products_removed": [],
            "fields": [
                {"field": "products.isodec.base_price_per_m2", "old": "150", "new": "160.50"}
            ],
        },
        "published": True,
        "version": 2,
        "held": [],
    }
    assert (price(desk, "isodec"), price(desk, "lana_roca")) == ("160.50", "140")


def test_a_dry_run_only_tells(desk: Any) -> None:
    report = desk.ask("import_catalogue", {"format": "csv", "content": PRICES, "dry_run": True})
    assert (report["published"], report["version"]) == (False, 1)
    assert report["changes"]["fields"]
    assert catalogues(desk).current() == load_catalogue()


def test_an_import_that_runs_again_reports_the_same_and_publishes_nothing_more(desk: Any) -> None:
    task = desk.accept("import_catalogue", {"format": "csv", "content": PRICES})
    first = desk.run(task)
    later = json.dumps([{"id": "isodec", "base_price_per_m2": 170}])
    desk.ask("import_catalogue", {"format": "json", "content": later})
    assert desk.run(task) == first
    assert price(desk, "isodec") == "170"


def test_an_import_that_changes_nothing_makes_no_version(desk: Any) -> None:
    report = desk.ask("import_catalogue", {"format": "csv", "content": "id\nisodec"})
    assert (report["published"], report["version"]) == (False, 1)


def test_a_source_is_imported_once(desk: Any) -> None:
    asked = {"format": "csv", "content": PRICES, "source_key": "prices of may"}
    first = desk.ask("import_catalogue", asked)
    later = json.dumps([{"id": "isodec", "base_price_per_m2": 170}])
    desk.ask("import_catalogue", {"format": "json", "content": later})
    assert desk.ask("import_catalogue", asked) == first
    assert price(desk, "isodec") == "170"
    other = PRICES.replace("160", "161")
    assert refusal(desk, content=other, source_key="prices of may") == "source_key_reused"


def test_imports_at_once_lose_no_row_of_each_other(desk: Any) -> None:
    products = ["isodec", "poliestireno", "lana_roca"]
    tasks = [
        desk.accept(
            "import_catalogue",
            {"format": "csv", "content": f"id,base_price_per_m2\n{product},{100 + n}.5"},
        )
        for n, product in enumerate(products * 2, start=1)
    ]
    start = Barrier(len(tasks))

    def run(task: Any) -> Any:
        start.wait(timeout=30)
        return desk.run(task)

    with ThreadPoolExecutor(len(tasks)) as threads:
        reports = list(threads.map(run, tasks))
    # Every import had a version of its own, and the last of each product stands.
    assert sorted(report["version"] for report in reports) == list(range(2, 8))
    for n, product in enumerate(products, start=1):
        first, second = reports[n - 1], reports[n + 2]
        last = n if first["version"] > second["version"] else n + 3
        assert price(desk, product) == f"{100 + last}.5"


def test_an_import_helps_one_that_died_before_its_version_was_in_force(desk: Any) -> None:
    died = ImportedCatalogues(desk.engine.database)
    desk.engine.database["catalogues"].insert_one(
        {
            "_id": 2,
            "source_key": "import:died",
            "catalogue": load_catalogue().to_document(),
        }
    )
    assert died.current().version == 1
    report = desk.ask("import_catalogue", {"format": "csv", "content": PRICES})
    assert report["version"] == 3
    assert catalogues(desk).current().version == 3


# --- Files --------------------------------------------------------------------------------


def test_a_file_of_the_import_folder_is_imported(folder: Path, desk: Any) -> None:
    (folder / "may").mkdir()
    (folder / "may" / "prices.csv").write_text(PRICES)
    report = desk.ask("import_catalogue", {"format": "csv", "path": "may/prices.csv"})
    assert report["published"]


@pytest.mark.parametrize(
    "path", ["../secret.csv", "link.csv", "nothing.csv", ".", "/etc/passwd", "a\x00b", "x" * 300]
)
def test_only_files_of_the_import_folder_are_read(folder: Path, desk: Any, path: str) -> None:
    (folder / "link.csv").symlink_to(folder.parent / "secret.csv")
    assert refusal(desk, path=path) == "file_not_found"


def test_a_file_that_is_no_text_is_refused(folder: Path, desk: Any) -> None:
    (folder / "prices.csv").write_bytes("id,name_es\nisodec,Tejadó".encode("latin-1"))
    assert refusal(desk, path="prices.csv") == "file_unreadable"


def test_without_an_import_folder_nothing_is_read_from_disk(desk: Any) -> None:
    desk.engine.settings = desk.engine.settings.model_copy(update={"import_dir": None})
    assert refusal(desk, path="prices.csv") == "import_folder_missing"
