"""How long a request may keep its caller waiting for the stores, all reads and writes together."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pymongo

from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.tasks import store_errors

# Requests of this process that speak to MongoDB at once. More would not be served sooner:
# of a burst, each would be as late as the last, and all of them too late together.
AT_ONCE = 8
_line = threading.BoundedSemaphore(AT_ONCE)


@contextmanager
def prompt(engine: Engine) -> Iterator[None]:
    """One deadline for all that the block asks of MongoDB, its place in the line included.

    Without it each operation has a limit of its own, and is tried again past it: a server
    that hangs would keep the caller waiting for many seconds. Waiting for a task to end does
    not belong into the block.

    Raises:
        StoreUnavailable: MongoDB is away or too busy, or the time is over.
    """
    deadline = time.monotonic() + engine.settings.store_timeout_s
    if not _line.acquire(timeout=engine.settings.store_timeout_s):
        raise StoreUnavailable()
    try:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StoreUnavailable()
        with store_errors(), pymongo.timeout(left_s):
            yield
    finally:
        _line.release()
