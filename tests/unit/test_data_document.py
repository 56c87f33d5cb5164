"""docs/data.md names every collection, and no setting that is not there."""

import re
from pathlib import Path

from orchestrator.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = (PROJECT / "docs/data.md").read_text()
ROWS = re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT, re.MULTILINE)


def collections_in_the_code() -> set[str]:
    found: set[str] = set()
    for package in ("orchestrator", "agents"):
        for path in (PROJECT / package).rglob("*.py"):
            found |= set(re.findall(r'database\["([a-z_]+)"\]', path.read_text()))
    return found


def test_every_collection_has_its_row() -> None:
    assert {"tasks", "sessions", "quotes"} <= collections_in_the_code()
    assert sorted(ROWS) == sorted(collections_in_the_code())


def test_every_setting_is_there_with_its_default() -> None:
    defaults = Settings()
    named = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`(?: \((\d+)\))?", DOCUMENT)
    assert {"TASK_RETENTION_DAYS", "SESSION_RETENTION_DAYS"} <= {name for name, _ in named}
    for name, default in named:
        value = getattr(defaults, name.lower())
        assert default in ("", f"{value:g}"), name
