"""What a workflow run costs over its bare tasks, submitted one after the other by hand."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.sides import REPLY_TIMEOUT_S, Ours, worker
from orchestrator.definitions import check

SLOTS = 8
POLL_S = 0.02
STEPS = 10
WARM_UP = 2


@dataclass(frozen=True)
class Costs:
    """Milliseconds for all steps, and the ratio of the two within a round."""

    by_hand_ms: float
    as_run_ms: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def running(ours: Ours, rounds: int, log_file: Path, step: Callable[[str], None]) -> Costs:
    """Both ways in turn, so many times; medians.

    By hand: submit, wait for the result, submit the next one. As a run: from its start to the
    time at which it was written down as completed, by the same clock.
    """
    chain = [{"id": f"s{n}", "task": "noop"} for n in range(STEPS)]
    ours.engine.init([])
    ours.engine.definitions.put(check({"id": "chain", "steps": chain}), "bench")
    times: list[tuple[float, float]] = []
    with worker(ours, SLOTS, log_file):
        ours.wait_until_declared()
        for round_ in range(WARM_UP + rounds):
            step(f"round {round_ + 1}")
            ways = [_by_hand, _as_run]
            found = {way: way(ours) for way in (ways if round_ % 2 else ways[::-1])}
            times.append((found[_by_hand], found[_as_run]))
    times = times[WARM_UP:]
    ratios = [as_run / by_hand for by_hand, as_run in times]
    return Costs(
        median(by_hand for by_hand, _ in times),
        median(as_run for _, as_run in times),
        median(ratios),
        min(ratios),
        max(ratios),
    )


def _by_hand(ours: Ours) -> float:
    began = ours.engine.clock.now()
    for _ in range(STEPS):
        ours.wait(ours.submit())
    return (ours.engine.clock.now() - began).total_seconds() * 1e3


def _as_run(ours: Ours) -> float:
    engine = ours.engine
    began = engine.clock.now()
    run, _ = engine.workflows.start("chain", {}, caller="bench")
    deadline = engine.clock.monotonic() + REPLY_TIMEOUT_S
    while (stored := engine.workflows.get(run.id)).finished_at is None:
        if engine.clock.monotonic() > deadline:
            raise TimeoutError(run.id)
        time.sleep(POLL_S)  # seldom: who asks all the time measures that
    return (stored.finished_at - began).total_seconds() * 1e3
