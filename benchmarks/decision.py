"""What one routing decision costs, by the number of candidates."""

import random
import time
import timeit

from orchestrator.router import Candidate, RoutingState, choose

REPEATS = 9


def decision_us(candidates: int, strategy: str = "balanced") -> float:
    """Microseconds of one `choose` among this many loaded agents, each with one live worker."""
    rng = random.Random(candidates)
    offered = [
        Candidate(
            agent=f"agent_{n:04}",
            capabilities=frozenset({"nothing", f"extra_{n % 5}"}),
            slots=8,
            held=8,
            queued=rng.randrange(100),
            mean_run_s=rng.uniform(0.01, 1.0),
        )
        for n in range(candidates)
    ]
    needed = frozenset({"nothing"})
    state = RoutingState(turn=3, routed={"agent_0001": 2})
    calls = max(1, 20_000 // candidates)
    timer = timeit.Timer(
        lambda: choose(needed, offered, strategy, state),
        # CPU time: a machine that is busy with others says nothing of the decision.
        timer=time.process_time,
    )
    return min(timer.repeat(REPEATS, calls)) / calls * 1e6
