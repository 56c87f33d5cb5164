"""What a sync costs beside a plain read of the same file by the library that reads it.

One process, the embedded MongoDB synced at every commit, no workers: the handler's own work. "Told"
is a dry run: rows read, mapped, judged, compared with what is there. "Brought in" also writes
each, with what both sides agree on. Memory is what the process grew by at its peak.
"""

import csv
import json
import resource
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import ijson
import openpyxl

from agents.data_sync.agent import open_office
from agents.data_sync.syncs import syncs_of
from orchestrator.engine import Engine
from orchestrator.settings import Settings

SYNC = """
syncs:
  {name}:
    source: {{type: file, path: {path}}}
    target: {{type: records, dataset: {name}}}
    key: code
    columns:
      code: {{}}
      name: {{required: true}}
      price: {{type: decimal, at_least: 0}}
      stock: {{type: integer}}
      active: {{type: boolean}}
      changed: {{type: date}}
"""
HEADER = ("code", "name", "price", "stock", "active", "changed")


@dataclass(frozen=True)
class Syncing:
    """Rows a second, by the way that they are read; and MB that the process grew by."""

    rows: int
    plain: float
    told: float
    brought_in: float
    again: float
    grew_mb: float

    @property
    def ratio_told(self) -> float:
        """A dry run's rate to the plain read's."""
        return self.told / self.plain

    @property
    def ratio_brought_in(self) -> float:
        """The same of rows that are brought in."""
        return self.brought_in / self.plain


def syncing(rows: int, directory: Path, redis_url: str, mongodb_uri: str) -> dict[str, Syncing]:
    """Measure files of so many rows; format -> what was found."""
    (directory / "in").mkdir()
    found = {}
    for form, write, plain in (
        ("csv", _write_csv, _read_csv),
        ("xlsx", _write_xlsx, _read_xlsx),
        ("json", _write_json, _read_json),
    ):
        path = directory / "in" / f"rows.{form}"
        write(path, rows)
        definitions = directory / f"{form}.yaml"
        definitions.write_text(SYNC.format(name=form, path=path.name))
        engine = Engine(
            Settings(
                redis_url=redis_url,
                mongodb_uri=mongodb_uri,
                mongodb_database=f"sync-{form}",
                import_dir=directory / "in",
                syncs_file=definitions,
            )
        )
        engine.init([])
        open_office(engine)

        def run(engine: Engine = engine, name: str = form, **more: bool) -> None:
            report = syncs_of(engine).run(
                name,
                secrets.token_hex(16),
                **{"dry_run": False, "full": True, "confirmed": False} | more,
                should_stop=lambda: False,
            )
            assert report["counts"]["rows"] == rows, report["counts"]

        read_s = _seconds(lambda read=plain, path=path: read(path))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told_s = _seconds(lambda run=run: run(dry_run=True))
        in_s = _seconds(run)
        again_s = _seconds(run)
        grew_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        engine.close()
        found[form] = Syncing(
            rows, rows / read_s, rows / told_s, rows / in_s, rows / again_s, grew_mb
        )
    return found


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _row(n: int) -> tuple[str, str, str, int, bool, str]:
    return (
        f"A-{n:07}",
        f"Panel de {n} mm",
        f"{n % 9999}.{n % 100:02}",
        n % 500,
        True,
        "2026-11-27",
    )


def _write_csv(path: Path, rows: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(_row(n) for n in range(rows))


def _write_xlsx(path: Path, rows: int) -> None:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    sheet.append(HEADER)
    for n in range(rows):
        code, name, price, *more = _row(n)
        sheet.append([code, name, float(price), *more])
    book.save(path)


def _write_json(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for n in range(rows):
            code, name, price, *more = _row(n)
            row = dict(zip(HEADER, [code, name, float(Decimal(price)), *more], strict=True))
            file.write(("," if n else "") + json.dumps(row))
        file.write("]")


def _read_csv(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        for _ in csv.reader(file):
            pass


def _read_xlsx(path: Path) -> None:
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    for _ in book.worksheets[0].iter_rows(values_only=True):
        pass
    book.close()


def _read_json(path: Path) -> None:
    with path.open("rb") as file:
        for _ in ijson.items(file, "item"):
            pass
