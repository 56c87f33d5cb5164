"""Which agent gets a task.

`choose` is pure: values in, a `Decision` out; no Redis, no clock. `Router` is its thin
shell: it keeps the last snapshot of the load for some tens of milliseconds and adds to it
what it has routed since, so that a burst does not all go to the agent that looked idle.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from orchestrator.declarations import Declaration, DeclarationStore
from orchestrator.errors import BrokerUnavailable, NoCapableAgent
from orchestrator.logs import log
from orchestrator.registry import Load, Registry
from orchestrator.settings import Settings
from orchestrator.tasks import Priority, Request

# A run time to compare queues by, before anything has run.
UNKNOWN_RUN_S = 0.1
# After a Redis that did not answer, so that not every request waits for its timeout.
BLIND_S = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent that can do the task, and its load.

    `slots` counts the slots of live workers only: 0 means offline.
    """

    agent: str
    capabilities: frozenset[str]
    slots: int
    held: int = 0
    queued: int = 0
    mean_run_s: float = 0.0


@dataclass(frozen=True)
class RoutingState:
    """What a router remembers between choices: a counter, and what it routed since the snapshot."""

    turn: int = 0
    routed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """The choice, and what led to it. Scores: lower is better; equal ones go by name."""

    agent: str
    strategy: str
    reason: str
    scores: Mapping[str, float]
    waits_for_worker: bool

    def to_document(self) -> dict[str, Any]:
        """The form in which it is stored with the task."""
        return {
            "agent": self.agent,
            "strategy": self.strategy,
            "reason": self.reason,
            "candidates": [
                {"agent": agent, "score": round(score, 6)}
                for agent, score in sorted(self.scores.items(), key=lambda item: (item[1], item[0]))
            ],
            "waits_for_worker": self.waits_for_worker,
        }


# Scores of candidates that are in the order of their names.
Scores = Callable[[Sequence[Candidate], frozenset[str], RoutingState], list[float]]


def choose(
    needed: Collection[str],
    candidates: Sequence[Candidate],
    strategy: str,
    state: RoutingState,
    preferred: Collection[str] = (),
) -> Decision:
    """Choose among candidates by a strategy; equal input, equal choice.

    `needed` are all capabilities that the task needs. An agent without a live worker is
    chosen only if no candidate has one. Those that have all of `preferred` are chosen from
    alone, if one of them has a live worker: what is preferred is never waited for.

    Raises:
        NoCapableAgent: no candidate has all that is needed.
    """
    needed = frozenset(needed)
    capable = [candidate for candidate in candidates if needed <= candidate.capabilities]
    if not capable:
        raise NoCapableAgent(capabilities=sorted(needed))
    live = [candidate for candidate in capable if candidate.slots > 0]
    favoured = [each for each in live if preferred and each.capabilities.issuperset(preferred)]
    ranked = sorted(favoured or live or capable, key=attrgetter("agent"))
    scores = STRATEGIES[strategy](ranked, needed, state)
    lowest = min(scores)
    equal = [candidate for candidate, score in zip(ranked, scores, strict=True) if score == lowest]
    best = min(equal, key=lambda candidate: len(candidate.capabilities))
    return Decision(
        agent=best.agent,
        strategy=strategy,
        reason=_reason(
            len(capable), len(live), strategy, ", ".join(sorted(preferred)), len(favoured)
        ),
        scores={candidate.agent: score for candidate, score in zip(ranked, scores, strict=True)},
        waits_for_worker=not live,
    )


def _round_robin(
    ranked: Sequence[Candidate], needed: frozenset[str], state: RoutingState
) -> list[float]:
    """How many turns away each is."""
    return [float((place - state.turn) % len(ranked)) for place in range(len(ranked))]


def _least_busy(
    ranked: Sequence[Candidate], needed: frozenset[str], state: RoutingState
) -> list[float]:
    """Utilisation: what is ahead / live slots."""
    routed = state.routed.get
    return [(c.queued + c.held + routed(c.agent, 0)) / (c.slots or 1) for c in ranked]


def _capability_match(
    ranked: Sequence[Candidate], needed: frozenset[str], state: RoutingState
) -> list[float]:
    """How many capabilities it has beyond those needed: fewest is the closest fit."""
    return [float(len(candidate.capabilities) - len(needed)) for candidate in ranked]


def _balanced(
    ranked: Sequence[Candidate], needed: frozenset[str], state: RoutingState
) -> list[float]:
    """Expected wait in seconds: what is ahead x mean run time / live slots (Little's law).

    While slots are free nobody waits, so that the fit decides between two idle agents.
    """
    routed = state.routed.get
    return [
        0.0
        if (beyond := c.queued + c.held + routed(c.agent, 0) - c.slots + 1) <= 0
        else beyond * (c.mean_run_s or UNKNOWN_RUN_S) / (c.slots or 1)
        for c in ranked
    ]


STRATEGIES: Mapping[str, Scores] = {
    "round_robin": _round_robin,
    "least_busy": _least_busy,
    "capability_match": _capability_match,
    "balanced": _balanced,
}

_WHY = {
    "round_robin": "its turn",
    "least_busy": "the lowest utilisation",
    "capability_match": "the closest fit",
    "balanced": "the shortest expected wait, then the closest fit",
}


def _reason(capable: int, live: int, strategy: str, preferred: str, favoured: int) -> str:
    if favoured == 1 < live:
        return f"the only one of {live} live agents that has what is preferred: {preferred}"
    if capable == 1:
        why = "the only agent that can do it"
    elif live == 1:
        why = f"the only one of {capable} capable agents with a live worker"
    else:
        why = f"{_WHY[strategy]} among {favoured or live or capable} capable agents"
    if preferred and not favoured:
        why += f"; none that is live has what is preferred: {preferred}"
    return why if live else f"{why}; no worker is live, so the task waits for one"


def candidate_of(
    agent: Declaration, load: Load | None, queue_of: Callable[[str], str]
) -> Candidate:
    """An agent with its load; without a snapshot it counts as offline and idle."""
    if load is None:
        return Candidate(agent.agent_id, agent.capabilities, slots=0)
    workers = load.live(agent.agent_id)
    means = [worker.beat.mean_run_s for worker in workers if worker.beat.mean_run_s > 0]
    return Candidate(
        agent=agent.agent_id,
        capabilities=agent.capabilities,
        slots=sum(worker.beat.agents[agent.agent_id] for worker in workers),
        held=sum(worker.beat.running.get(agent.agent_id, 0) for worker in workers),
        queued=sum(load.queues.get(queue_of(agent.role), {}).values()),
        mean_run_s=sum(means) / len(means) if means else 0.0,
    )


class Router:
    """Routes requests by the current load. Thread-safe, one per process."""

    def __init__(
        self, declarations: DeclarationStore, registry: Registry, settings: Settings
    ) -> None:
        self._declarations = declarations
        self._registry = registry
        self._settings = settings
        self._lock = threading.Lock()
        self._load: Load | None = None
        self._load_at = float("-inf")
        self._turn = 0
        self._routed: dict[str, int] = {}
        self._candidates: dict[str, Candidate] = {}  # of the last snapshot, made when first asked
        self.epoch = 0

    def route(self, request: Request, *, public: bool = False) -> tuple[Declaration, Decision]:
        """Choose the agent of a request; with `public`, among types open to the outside.

        Raises:
            NoCapableAgent: no declared agent can do it.
            StoreUnavailable: the declarations cannot be read.
        """
        capable = self._declarations.capable(request.type, request.capabilities, public=public)
        if request.agent is not None:
            capable = [agent for agent in capable if agent.agent_id == request.agent]
            if not capable:
                raise NoCapableAgent(agent=request.agent, task_type=request.type)
        needed = frozenset(request.capabilities) | capable[0].task_types[request.type].needs
        with self._lock:
            self._refresh()
            decision = choose(
                needed,
                [self._candidate(agent) for agent in capable],
                request.strategy or self._settings.routing_strategy,
                RoutingState(self._turn, self._routed),
                request.prefers,
            )
            self._turn += 1
            self._routed[decision.agent] = self._routed.get(decision.agent, 0) + 1
        agent = next(agent for agent in capable if agent.agent_id == decision.agent)
        return agent, decision

    def expected_wait_s(self, request: Request, *, public: bool = False) -> float | None:
        """How long a request would wait for a slot, where it would wait least; None where no
        agent that can do it has a live worker, or nobody knows.

        (What is as urgent or more, and queued, or held) x mean run time / live slots: what is
        less urgent is overtaken.

        Raises:
            NoCapableAgent: no declared agent can do it.
            StoreUnavailable: the declarations cannot be read.
        """
        capable = self._declarations.capable(request.type, request.capabilities, public=public)
        with self._lock:
            self._refresh()
            waits = [self._wait_s(agent, request.priority) for agent in capable]
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def _wait_s(self, agent: Declaration, priority: Priority) -> float | None:
        candidate = self._candidate(agent)
        if self._load is None or not candidate.slots:
            return None
        depths = self._load.queues.get(self._settings.queue(agent.role), {})
        ahead = sum(depth for other, depth in depths.items() if other.step <= priority.step)
        ahead += candidate.held + self._routed.get(agent.agent_id, 0)
        if ahead < candidate.slots:
            return 0.0
        return ahead * (candidate.mean_run_s or UNKNOWN_RUN_S) / candidate.slots

    def load(self, *, fresh: bool = False) -> Load:
        """A snapshot no older than the settings allow, or a fresh one.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        with self._lock:
            self._refresh(fresh=fresh)
            if self._load is None:
                raise BrokerUnavailable()
            return self._load

    def _refresh(self, *, fresh: bool = False) -> None:
        age_ms = (time.monotonic() - self._load_at) * 1000
        if age_ms < self._settings.load_view_ms and not fresh:
            return
        roles = [agent.role for agent in self._declarations.all().values()]
        try:
            self._load = self._registry.load([self._settings.queue(role) for role in roles])
        except BrokerUnavailable as error:
            # Routing goes on blind: the task is stored, and published when Redis is back.
            log.warning("router.load_unknown", error=error.code)
            self._load = None
            self._load_at = time.monotonic() + BLIND_S
        else:
            self.epoch = self._load.epoch or self.epoch
            self._load_at = time.monotonic()
        self._routed = {}
        self._candidates = {}

    def _candidate(self, agent: Declaration) -> Candidate:
        known = self._candidates.get(agent.agent_id)
        if known is None:
            known = candidate_of(agent, self._load, self._settings.queue)
            self._candidates[agent.agent_id] = known
        return known
