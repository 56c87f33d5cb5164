"""`make demo-business`, in small: a week goes by, and its report tells what the customers did."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_a_week_is_played_and_reported(tmp_path: Path, project: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "month", "--weeks=1", "--conversations=12", "--every-h=24"),
            *("--products=20", f"--out={tmp_path}"),
        ],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{project}"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "20 products in version 2" in run.stdout
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {
            row["measure"]: row["value"]
            for row in csv.DictReader(file)
            if not row["date"] and not row["dimension"]
        }
    played = next(line for line in run.stdout.splitlines() if " conversations, " in line)
    assert f"{int(rows['messages']):,} messages" in played
    assert 0 < int(rows["sessions"]) <= int(rows["messages"])
    assert int(rows["quotes_offered"]) > 0
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "Informe de Panelia" in (tmp_path / "report.html").read_text()
