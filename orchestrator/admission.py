"""Who is let in when there is more to do than can be done in time.

Keeps secret how full the desk is. Only requests from outside are looked at, before anything is
stored: what was accepted, and what follows from it, is done. High and critical ones go in as
long as the store is not full.
"""

import math
import threading
import time

from orchestrator.errors import Overloaded
from orchestrator.logs import log
from orchestrator.router import Router
from orchestrator.settings import Settings
from orchestrator.tasks import Priority, Request, TaskStore

# A count of unfinished tasks is used for this long, and longer where it took long.
COUNT_FOR_S = 3.0
COUNTING_SHARE = 0.05
# Said to who comes while the store is full: it empties by what gets done.
FULL_RETRY_S = 30
LONGEST_RETRY_S = 600
PATIENT = (Priority.NORMAL, Priority.LOW)


class Admission:
    """One per process. Thread-safe."""

    def __init__(self, store: TaskStore, router: Router, settings: Settings) -> None:
        self._store = store
        self._router = router
        self._settings = settings
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._unfinished = 0
        self._count_again_at = float("-inf")

    def check(self, request: Request, *, public: bool = False) -> None:
        """See that a request from outside may come in now.

        Raises:
            Overloaded: it may not, and when it should come again.
            NoCapableAgent: nobody can do it at all.
            StoreUnavailable: MongoDB does not answer.
        """
        self._count()
        with self._lock:
            full = self._unfinished >= self._settings.max_unfinished
            # Until the next count, as if it were accepted.
            self._unfinished += 1
        if full:
            log.warning("admission.full", type=request.type, priority=request.priority.value)
            raise Overloaded(
                retry_after_s=FULL_RETRY_S, max_unfinished=self._settings.max_unfinished
            )
        if request.priority not in PATIENT:
            return
        wait_s = self._router.expected_wait_s(request, public=public)
        beyond_s = 0.0 if wait_s is None else wait_s - self._settings.max_expected_wait_s
        if wait_s is not None and beyond_s > 0:
            log.warning("admission.refused", type=request.type, priority=request.priority.value)
            raise Overloaded(
                retry_after_s=min(math.ceil(beyond_s), LONGEST_RETRY_S),
                expected_wait_s=round(wait_s, 1),
                max_expected_wait_s=self._settings.max_expected_wait_s,
            )

    def _count(self) -> None:
        # One at a time; who finds it under way goes by the last one.
        if time.monotonic() < self._count_again_at or not self._counting.acquire(blocking=False):
            return
        try:
            began = time.monotonic()
            unfinished = self._store.count_unfinished(self._settings.max_unfinished)
            took_s = time.monotonic() - began
            with self._lock:
                self._unfinished = unfinished
                self._count_again_at = began + max(COUNT_FOR_S, took_s / COUNTING_SHARE)
        finally:
            self._counting.release()
