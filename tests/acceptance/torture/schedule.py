"""Which fault comes when: a function of the seed.

Kinds come from a shuffled deck, so that each has come before one comes again. Two faults
overlap only where they break different things: then both are certain to be what they say.
Some come alone, so that the recovery from them can be told; others two or three at once.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORKERS = ("talk-1", "talk-2", "work-1", "work-2")
# The only one with a pool of processes.
PREFORK = "work-2"
# Those whose servers are reached through a proxy.
BEHIND_PROXIES = ("talk-2", "work-1")
STORM_ODDS = 0.2
STORM_S = 1.5


@dataclass(frozen=True)
class Kind:
    """A way to break something.

    `breaks` are the things of which one is chosen, `lasts_s` the range of its length. Those
    that the supervisor mends last 0 s. Its recovery counts from its beginning where others
    take over, and from its end where nobody can.
    """

    name: str
    breaks: tuple[str, ...]
    lasts_s: tuple[float, float] = (0.0, 0.0)
    recovers_from: str = "beginning"
    bare_too: bool = True


def kinds(lease_s: float) -> tuple[Kind, ...]:
    """All of them. What is frozen or cut off outlives its lease."""
    past_lease = (lease_s + 2.0, lease_s + 6.0)
    short, long = (0.5, 2.5), (3.0, 8.0)
    return (
        Kind("worker killed", ("talk-1", "talk-2", "work-1")),
        Kind("prefork worker killed", (PREFORK,)),
        Kind("pool child killed", (PREFORK,)),
        Kind("worker frozen", WORKERS, past_lease),
        Kind("front door killed", ("door",), bare_too=False),
        Kind("front door's parent killed", ("door",), bare_too=False),
        Kind("front door's child killed", ("door",), bare_too=False),
        Kind("beat killed", ("beat",), bare_too=False),
        Kind("worker cut off, refused", BEHIND_PROXIES, past_lease),
        Kind("worker cut off, silent", BEHIND_PROXIES, past_lease),
        Kind("Redis killed", ("redis",), short, "end"),
        Kind("Redis stopped for long", ("redis",), long, "end"),
        Kind("Redis hangs", ("redis",), long, "end"),
        Kind("Redis emptied", ("redis",)),
        Kind("Redis connections killed", ("redis",)),
        Kind("MongoDB killed", ("mongo",), short, "end", bare_too=False),
        Kind("MongoDB stopped for long", ("mongo",), long, "end", bare_too=False),
        Kind("MongoDB hangs", ("mongo",), long, "end", bare_too=False),
        Kind("clock jumps ahead", ("clock",), bare_too=False),
        Kind("clock jumps back", ("clock",), bare_too=False),
    )


@dataclass(frozen=True)
class Fault:
    """One fault: `target` is broken from `at_s` of the run until `ends_s`.

    `draw` is a number below 1 for what else has to be chosen, such as which child.
    """

    at_s: float
    ends_s: float
    kind: str
    target: str
    draw: float


def plan(
    seed: int, length_s: float, gap_s: tuple[float, float], kinds: Sequence[Kind]
) -> list[Fault]:
    """The faults of a run, by time; none outlasts `length_s`."""
    rng = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    free_at: dict[str, float] = {}
    deck = _deck(rng, kinds)
    at_s = rng.uniform(*gap_s)
    while at_s < length_s:
        several = rng.random() < STORM_ODDS
        over_at = at_s
        for _ in range(rng.choice((2, 3)) if several else 1):
            kind = next(deck)
            target = rng.choice(kind.breaks)
            begins = max(at_s + (rng.uniform(0, STORM_S) if several else 0), free_at.get(target, 0))
            ends = begins + rng.uniform(*kind.lasts_s)
            if ends > length_s:
                continue
            # A process that is being started has nothing yet that could be broken.
            free_at[target] = ends + gap_s[0]
            over_at = max(over_at, ends)
            faults.append(Fault(begins, ends, kind.name, target, rng.random()))
        at_s = over_at + rng.uniform(*gap_s)
    return sorted(faults, key=lambda fault: fault.at_s)


def _deck(rng: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        yield from rng.sample(kinds, len(kinds))
