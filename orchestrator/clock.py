"""What time it is: the database's, so that hosts need not agree.

Leases, deadlines and due times are written and compared in MongoDB's clock. A process
learns the offset between it and its own monotonic clock with each renewal, and tells time
by the monotonic clock in between: a host whose wall clock jumps is not noticed at all, a
database whose clock jumps is (`Clock.observe` says by how much).
"""

import datetime as dt
import threading
import time


class Clock:
    """Aware UTC times in the database's clock. Thread-safe; starts from the host's clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._base = dt.datetime.now(dt.UTC)
        self._base_monotonic = self.monotonic()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def now(self) -> dt.datetime:
        """The time in the database's clock, to the millisecond as MongoDB keeps it."""
        with self._lock:
            now = self._base + dt.timedelta(seconds=self.monotonic() - self._base_monotonic)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def observe(self, database_time: dt.datetime) -> float:
        """Take a reading of the database's clock; returns its jump in seconds since the last."""
        with self._lock:
            monotonic = self.monotonic()
            expected = self._base + dt.timedelta(seconds=monotonic - self._base_monotonic)
            self._base, self._base_monotonic = database_time, monotonic
        return (database_time - expected).total_seconds()
