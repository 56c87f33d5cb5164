"""One thing after the other: one that cannot be mended does not keep the others waiting."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from orchestrator.errors import StoreUnavailable
from orchestrator.logs import log, where

Thing = TypeVar("Thing")


def each(
    step: str, things: Iterable[Thing], mend: Callable[[Thing], int], name: Callable[[Thing], str]
) -> int:
    """The sum of what `mend` returns. What it raises is logged under the thing's name, which must
    say nothing of a customer, and is met again in the next pass.

    Raises:
        StoreUnavailable: there is no use in going on.
    """
    done = 0
    for thing in things:
        try:
            done += mend(thing)
        except StoreUnavailable:
            raise
        except Exception as error:
            code = type(error).__name__
            trace = where(error.__traceback__)
            log.error("rescue.stumbled", step=step, thing=name(thing), error=code, where=trace)
    return done
