"""What docs/library-gaps.md says of libraries stands where it says so."""

import re
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = Path(sysconfig.get_path("purelib"))
TOLD = re.compile(r"`([\w/]+\.py):(\d+)`\s+`([^`]+)`")
PLACES = TOLD.findall((ROOT / "docs" / "library-gaps.md").read_text())


def test_places_are_told():
    assert len(PLACES) > 20
    assert {path.split("/")[0] for path, _, _ in PLACES} == {
        "billiard",
        "celery",
        "flower",
        "gunicorn",
        "kombu",
        "pymongo",
        "redis",
    }


@pytest.mark.parametrize(("path", "line", "what"), PLACES, ids=lambda told: str(told)[:40])
def test_a_place_holds_what_is_told(path, line, what):
    assert what in (LIBRARIES / path).read_text().splitlines()[int(line) - 1]
