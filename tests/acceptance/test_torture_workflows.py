"""The shipped workflows end as they must, whatever dies: a short `make torture-workflows`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEED = 4
MINUTES = 0.4
RUNS = 40


@pytest.mark.acceptance
@pytest.mark.timeout(240)
def test_each_run_ends_and_each_step_counts_once_while_what_carries_it_is_killed(tmp_path, project):
    # A process of its own: it is what `make torture-workflows` runs, and what fails it fails this.
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torture.flows"),
            *(f"--seed={SEED}", f"--minutes={MINUTES}", f"--runs={RUNS}", "--gap-s=3"),
            f"--keep={tmp_path / 'flows'}",
        ],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{project}"},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
