"""A clock that is moved by hand, in place of the database's."""

import datetime as dt

from orchestrator.clock import Clock


class MovedClock(Clock):
    """Runs as time does, from a moment of choice on, and can be moved ahead. What the database
    says of the time is not heeded."""

    def __init__(self, start: dt.datetime) -> None:
        self._ahead_s = 0.0
        super().__init__()
        self._base = start

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead_s

    def observe(self, database_time: dt.datetime) -> None:
        self.read_at = self.monotonic()

    def move_to(self, moment: dt.datetime) -> None:
        """Move ahead to a moment; one that is over is no move."""
        self._ahead_s += max(0.0, (moment - self.now()).total_seconds())
