"""The front door keeps to its own description: a shorter run of `make fuzz`. See `fuzz/`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEED = 1


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_the_front_door_answers_as_its_description_says(tmp_path, project):
    # A process of its own: it is what `make fuzz` runs, and what fails it fails this. Every
    # boundary of every schema, as far as the time goes; the random requests are for `make fuzz`.
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "fuzz", "--phases=coverage", "--requests=50"),
            *("--max-time-s=40", f"--seed={SEED}", f"--keep={tmp_path / 'fuzz'}"),
        ],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{project}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = run.communicate(timeout=150)
    finally:
        # By its own way out, which ends what it has started.
        run.terminate()
        run.wait(20)
    assert run.returncode == 0, said[-8000:]
