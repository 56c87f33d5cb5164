"""Syncs from the command line, beside a worker."""

import json
import threading
from collections.abc import Callable
from typing import Any

STOCK = """
syncs:
  stock:
    source: {type: file, path: stock.csv}
    target: {type: records, dataset: stock}
    key: sku
    columns: {sku: {from: Código}, price: {from: Precio, type: decimal}, name: {from: Nombre}}
    conflicts: ask
    schedule: "0 6 * * *"
"""


def test_syncs_and_imports_are_run_shown_and_decided(
    office_of: Callable[..., Any], orchestrator: Callable[..., Any]
) -> None:
    office = office_of(STOCK)
    workers = office.workers()
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(0.02):
            workers.work()

    worker = threading.Thread(target=run)
    worker.start()
    try:
        office.stock(("a", "A", "1"), ("b", "B", "much"))
        dry, done, listed, runs, unknown = orchestrator(
            ["sync", "run", "stock", "--dry-run"],
            ["sync", "run", "stock", "--json"],
            ["sync", "list"],
            ["sync", "runs", "stock"],
            ["sync", "run", "nothing"],
        )
        assert (dry.code, "would be" in dry.out, "much" in dry.out) == (0, True, True)
        assert json.loads(done.out)["counts"]["inserted"] == 1
        assert "0 6 * * *" in listed.out
        assert "2 runs." in runs.out
        assert (unknown.code, unknown.err.startswith("orchestrator: no_such_sync")) == (1, True)
        office.syncs.records.put("stock", {"a": {"price": "5"}})
        office.stock(("a", "A", "2"))
        office.desk.ask(
            "import_catalogue", {"format": "csv", "content": "id,base_price_per_m2\nisodec,1500"}
        )
        _, conflicts, held = orchestrator(
            ["sync", "run", "stock"],
            ["sync", "conflicts", "stock", "--json"],
            ["catalogue", "imports", "--state", "held", "--json"],
        )
        (conflict,) = json.loads(conflicts.out)
        (wanted,) = json.loads(held.out)
        resolved, approved, again, restored, versions = orchestrator(
            ["sync", "resolve", conflict["id"], "source"],
            ["catalogue", "approve", wanted["id"]],
            ["catalogue", "reject", wanted["id"]],
            ["catalogue", "restore", "1", "--json"],
            ["catalogue", "versions"],
        )
        assert resolved.code == 0
        assert office.records()["a"]["price"] == "2"
        assert "version 2" in approved.out
        assert (again.code, "already_decided" in again.err) == (1, True)
        assert json.loads(restored.out)["version"] == 3
        assert "in force" in versions.out
    finally:
        stopped.set()
        worker.join()
