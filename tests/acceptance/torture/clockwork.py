"""The clock that jumps: what every process under test is told as the database's time.

The stage writes an offset into a file. As with a real database whose host's clock is set, each
process learns of it with its next reading.
"""

import datetime as dt
import os
from pathlib import Path

import orchestrator.engine
from orchestrator.clock import Clock

OFFSET_VARIABLE = "TORTURE_CLOCK"


class JumpingClock(Clock):
    """The real clock, with an offset on all that the database tells."""

    def observe(self, database_time: dt.datetime) -> None:
        """Take a reading of the database's clock, as far as it has jumped by now."""
        offset_s = float(Path(os.environ[OFFSET_VARIABLE]).read_text())
        super().observe(database_time + dt.timedelta(seconds=offset_s))


def install() -> None:
    """Let engines of this process tell the time by it."""
    orchestrator.engine.Clock = JumpingClock
