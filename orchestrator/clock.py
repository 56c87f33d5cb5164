"""What time it is: the database's, so that hosts need not agree.

Leases, deadlines and due times are written and compared in MongoDB's clock. A process
learns the offset between it and its own monotonic clock with each reading, and tells time
by the monotonic clock in between: a host whose wall clock jumps is not noticed at all, a
database whose clock jumps is (`Clock.jumped_at`).
"""

import datetime as dt
import threading
import time

# A clock that moved by more than this between two readings did not drift.
JUMP_S = 1.0


class Clock:
    """Aware UTC times in the database's clock. Thread-safe; starts from the host's clock.

    `read_at` and `jumped_at` are monotonic times of the last reading and of the last jump,
    minus infinity where there was none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.read_at = float("-inf")
        self.jumped_at = float("-inf")
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

    def observe(self, database_time: dt.datetime) -> None:
        """Take a reading of the database's clock."""
        with self._lock:
            monotonic = self.monotonic()
            expected = self._base + dt.timedelta(seconds=monotonic - self._base_monotonic)
            jump_s = (database_time - expected).total_seconds()
            # The first reading only corrects the host's clock.
            if abs(jump_s) > JUMP_S and self.read_at != float("-inf"):
                self.jumped_at = monotonic
            self._base, self._base_monotonic, self.read_at = database_time, monotonic, monotonic
