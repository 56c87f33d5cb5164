"""The front door keeps to its own description: a shorter run of `make fuzz`. See `fuzz/`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_the_front_door_answers_as_its_description_says(tmp_path, project):
    # A process of its own: it is what `make fuzz` runs, and what fails it fails this. Every
    # example and every boundary of every schema; the random requests are for `make fuzz`.
    run = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz", "--phases=examples,coverage", "--requests=2000"),
            f"--keep={tmp_path / 'fuzz'}",
        ],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{project}"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
