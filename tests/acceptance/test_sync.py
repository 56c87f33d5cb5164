"""A sync on real processes: its worker is killed in the middle of an import."""

import os
import signal
from decimal import Decimal

import pytest

from agents.catalogue import CatalogueStore, load_catalogue
from orchestrator.errors import NotFound

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

PRODUCTS = 5_000
SYNCS = """
syncs:
  products:
    source: {type: file, path: products.csv}
    target: {type: catalogue}
    columns:
      id: {from: Código}
      base_price_per_m2: {from: Precio, type: decimal, decimal_comma: true}
      name_es: {from: Nombre}
      name_en: {from: Name}
      thicknesses_mm: {from: Espesores, type: list}
      description_es: {from: Descripción}
      description_en: {from: Description}
"""


def price(n: int) -> str:
    return f"{100 + n % 900}.{n % 100:02}"


@pytest.fixture
def desk(desk):
    """A desk with the shipped agents and a file of products."""
    lines = ["Código;Nombre;Name;Precio;Espesores;Descripción;Description"]
    for n in range(PRODUCTS):
        wrong = n % 1000 == 999
        told = "gratis" if wrong else price(n).replace(".", ",")
        texts = f"Es el panel número {n}, de los buenos.;It is panel number {n}, a good one."
        lines.append(f"panel_{n:04};Panel {n:04};Board {n:04};{told};50|100;{texts}")
    (desk.directory / "products.csv").write_text("\n".join(lines), encoding="utf-8")
    (desk.directory / "syncs.yaml").write_text(SYNCS)
    desk.environment |= {
        "AGENTS_PACKAGE": "agents",
        "IMPORT_DIR": str(desk.directory),
        "SYNCS_FILE": str(desk.directory / "syncs.yaml"),
    }
    return desk


def test_a_worker_that_is_killed_in_the_middle_of_an_import_leaves_no_row_missing_or_doubled(
    desk, eventually
):
    worker = desk.worker("data_sync", package="agents")
    task = desk.submit("run_sync", {"sync": "products"})

    def run():
        try:
            return desk.engine.resources.get("sync_runs", task.id)
        except NotFound:
            return None

    def rows_done():
        found = run()
        return found["counts"]["rows"] if found else 0

    # Twice: in the middle of the rows, and wherever it is a page or two later.
    for rows in (1_500, 3_000):
        eventually(lambda rows=rows: rows_done() >= rows, 60, f"{rows} rows are done")
        assert run()["state"] == "running"
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        worker = desk.worker("data_sync", package="agents")
    ended = desk.finished(task, 90)
    wrong = len(range(999, PRODUCTS, 1000))
    assert ended.crashes == 2
    assert (ended.result["state"], ended.result["result"]) == (
        "done",
        {"state": "published", "version": 2},
    )
    counts = {name: count for name, count in ended.result["counts"].items() if count}
    assert counts == {"rows": PRODUCTS, "inserted": PRODUCTS - wrong, "wrong": wrong}
    assert [cell["row"] for cell in ended.result["wrong"]] == list(range(1001, PRODUCTS + 2, 1000))
    catalogue = CatalogueStore(desk.engine.database).current()
    assert catalogue.version == 2
    shipped = [product.id for product in load_catalogue().products]
    right = [n for n in range(PRODUCTS) if n % 1000 != 999]
    # In the order of the file, and each once.
    assert [product.id for product in catalogue.products] == shipped + [
        f"panel_{n:04}" for n in right
    ]
    assert [product.base_price_per_m2 for product in catalogue.products[len(shipped) :]] == [
        Decimal(price(n)) for n in right
    ]
