"""What the slots of one process hold, and who may enter them.

Keeps secret how a task that is suspected of killing its process gets the process to itself:
it enters when nothing else is inside, and meanwhile nothing else does. No I/O, and no clock:
times are given.
"""

import threading
from collections import Counter
from dataclasses import dataclass

from orchestrator.tasks import Claim


@dataclass(eq=False)
class Attempt:
    """What one slot is doing. `fence` is the one that it holds the task by.

    Two messages may name the same one at once: they are two attempts.
    """

    agent_id: str
    type: str
    task_id: str
    fence: int
    soft_limit_s: float
    hard_limit_s: float
    claim: Claim | None = None
    # While its handler runs: since when. A result that waits for MongoDB is under no limit.
    since: float | None = None

    def past_soft(self, now: float) -> bool:
        """Its handler should have returned."""
        since = self.since
        return since is not None and now - since > self.soft_limit_s

    def past_hard(self, now: float) -> bool:
        """Its handler is given up."""
        since = self.since
        return since is not None and now - since > self.hard_limit_s


class Slots:
    """Attempts enter and leave; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._present: list[Attempt] = []  # inside, or waiting to enter
        self._inside: list[Attempt] = []
        self._alone = False
        self._suspects_waiting = 0
        self._closed = False

    def enter(self, attempt: Attempt, *, alone: bool) -> bool:
        """Wait until the attempt may begin; False if the slots were closed first.

        One that must be alone waits for those inside, and those that come later wait for it.
        """
        with self._changed:
            self._present.append(attempt)
            self._suspects_waiting += alone
            try:
                self._changed.wait_for(lambda: self._closed or self._may_enter(alone))
            finally:
                self._suspects_waiting -= alone
            if self._closed:
                self._present.remove(attempt)
                self._changed.notify_all()
                return False
            self._alone = alone
            self._inside.append(attempt)
            return True

    def _may_enter(self, alone: bool) -> bool:
        if alone:
            return not self._inside
        return not (self._alone or self._suspects_waiting)

    def leave(self, attempt: Attempt) -> None:
        """The attempt has ended, whatever came of it."""
        with self._changed:
            self._present.remove(attempt)
            self._inside.remove(attempt)
            if not self._inside:
                self._alone = False
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, nor those who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for_claims(self, timeout_s: float) -> None:
        """Wait until each attempt inside knows whether it has its task."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(attempt.claim is not None for attempt in self._inside), timeout_s
            )

    def claimed(self, attempt: Attempt, claim: Claim) -> None:
        """The attempt has its task."""
        with self._changed:
            attempt.claim = claim
            self._changed.notify_all()

    def inside(self) -> list[Attempt]:
        """All attempts that may hold a task."""
        with self._changed:
            return list(self._inside)

    def count_by_agent(self) -> Counter[str]:
        """Agent id -> slots taken, also by those that wait to enter."""
        with self._changed:
            return Counter(attempt.agent_id for attempt in self._present)
