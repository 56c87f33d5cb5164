"""Accepted means done, whatever dies: a short run of `make torture`. See `torture/`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEED = 10
LOAD_MINUTES = 0.75


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_nothing_is_lost_doubled_or_out_of_order_under_mixed_faults(tmp_path, project):
    # A process of its own: it is what `make torture` runs, and what fails it fails this.
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torture"),
            *(f"--seed={SEED}", f"--minutes={LOAD_MINUTES}", "--gap-s=2", "--lease-s=4"),
            f"--keep={tmp_path / 'torture'}",
        ],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{project}"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
