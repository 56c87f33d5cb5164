"""Files are read a page at a time, go on where they were, and are refused for what is wrong."""

import json
import os
import tracemalloc
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from agents.data_sync import files
from agents.data_sync.files import FileSource
from orchestrator.errors import TaskError

ROWS = [{"id": f"p{n}", "name": f"Ñandú {n}", "price": f"{n}.50"} for n in range(1, 8)]


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    if name.endswith(".csv"):
        lines = ["id;name;price", *(";".join(row.values()) for row in rows)]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif name.endswith(".json"):
        path.write_text(json.dumps({"data": {"products": rows}}))
    else:
        book = openpyxl.Workbook()
        sheet = book.create_sheet("Lista")
        sheet.append(["id", "name", "price"])
        for row in rows:
            sheet.append(list(row.values()))
        book.save(path)
    return name


def source(folder: Path, name: str, **more: Any) -> FileSource:
    asked: dict[str, Any] = {"page_rows": 3}
    if name.endswith(".json"):
        asked["items"] = "data.products"
    if name.endswith(".xlsx"):
        asked["sheet"] = "Lista"
    return FileSource(folder, name, **asked | more)


NAMES = ["list.csv", "list.json", "list.jsonl", "list.xlsx"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_its_rows_in_pages(tmp_path: Path, name: str) -> None:
    pages = list(source(tmp_path, written(tmp_path, name, ROWS)).read(None))
    # The first says only which file it is.
    assert [len(page.rows) for page in pages] == [0, 3, 3, 1]
    assert [page.last for page in pages] == [False, False, False, True]
    rows = [row for page in pages for row in page.rows]
    assert [dict(row.values) for row in rows] == ROWS
    first = 2 if name.endswith((".csv", ".xlsx")) else 1
    assert [row.place for row in rows] == list(range(first, first + 7))


@pytest.mark.parametrize("name", NAMES)
def test_a_read_goes_on_after_any_page(tmp_path: Path, name: str) -> None:
    written(tmp_path, name, ROWS)
    pages = list(source(tmp_path, name).read(None))
    for n, page in enumerate(pages[:-1]):
        assert list(source(tmp_path, name).read(page.cursor)) == pages[n + 1 :]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_changed_begins_anew_and_one_that_did_not_has_no_rows(
    tmp_path: Path, name: str
) -> None:
    written(tmp_path, name, ROWS)
    pages = list(source(tmp_path, name).read(None))
    again = list(source(tmp_path, name).read(pages[-1].cursor))
    assert [(page.rows, page.last) for page in again] == [((), True)]
    written(tmp_path, name, ROWS[:2])
    half = list(source(tmp_path, name).read(pages[0].cursor))
    assert [(page.start_over, len(page.rows)) for page in half] == [(True, 0), (False, 2)]
    done = list(source(tmp_path, name).read(pages[-1].cursor))
    assert [(page.start_over, len(page.rows)) for page in done] == [(False, 0), (False, 2)]


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"price": 149.90}]')
    page = list(FileSource(tmp_path, "a.json").read(None))[-1]
    assert page.rows[0].values == {"price": Decimal("149.90")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"\n1,2"),
        ("a.csv", b"id,id\n1,2"),
        ("a.csv", b'id,name\n1,"x'),
        ("a.csv", "id,name\n1,ñ".encode("latin-1")),
        ("a.csv", b"id,name\n1," + b"x" * files.MAX_LINE_CHARS),
        ("a.json", b'[{"id": 1}, {"id"'),
        ("a.json", b"[" * 100_000),
        ("a.jsonl", b'{"id": 1}\n{"id"'),
        ("a.xlsx", b"PK, not really"),
        ("a.txt", b"id\n1"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError) as refused:
        list(FileSource(tmp_path, name).read(None))
    assert refused.value.task_code == "file_unreadable"


def test_a_spreadsheet_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * 200_000)
    with pytest.raises(TaskError) as refused:
        list(FileSource(tmp_path, "a.xlsx").read(None))
    assert "unpacks" in str(refused.value)


@pytest.mark.parametrize("path", ["../secret.csv", "link.csv", ".", "/etc/passwd", "a\x00b"])
def test_only_files_of_the_folder_are_read(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "imports"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text("id\n1")
    os.symlink(tmp_path / "secret.csv", folder / "link.csv")
    with pytest.raises(TaskError) as refused:
        list(FileSource(folder, path).read(None))
    assert refused.value.task_code == "file_not_found"


@pytest.mark.parametrize("name", ["long.csv", "long.jsonl", "long.json"])
def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path: Path, name: str) -> None:
    def peak(rows: int) -> int:
        written(
            tmp_path, name, [{"id": f"p{n}", "name": "x" * 80, "price": "1"} for n in range(rows)]
        )
        tracemalloc.start()
        for _ in source(tmp_path, name, page_rows=500).read(None):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    short = peak(2_000)
    assert peak(20_000) < 1.5 * short
