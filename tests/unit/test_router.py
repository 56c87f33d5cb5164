"""The router's choice: properties that hold for every load, and the strategies one by one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import NoCapableAgent
from orchestrator.router import STRATEGIES, Candidate, RoutingState, choose

CAPABILITIES = ["nlp", "pricing", "knowledge", "messages", "reports"]

needed_sets = st.frozensets(st.sampled_from(CAPABILITIES), max_size=3)
strategies = st.sampled_from(sorted(STRATEGIES))
candidates = st.lists(
    st.builds(
        Candidate,
        agent=st.sampled_from([f"agent_{n}" for n in range(8)]),
        capabilities=st.frozensets(st.sampled_from(CAPABILITIES)),
        slots=st.integers(0, 20),
        held=st.integers(0, 40),
        queued=st.integers(0, 1000),
        mean_run_s=st.floats(0, 60),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda candidate: candidate.agent,
)
states = st.builds(
    RoutingState,
    turn=st.integers(0, 1000),
    routed=st.dictionaries(st.sampled_from([f"agent_{n}" for n in range(8)]), st.integers(0, 500)),
)


def capable(needed: frozenset[str], among: list[Candidate]) -> list[Candidate]:
    return [candidate for candidate in among if needed <= candidate.capabilities]


@given(needed_sets, candidates, strategies, states)
def test_the_chosen_agent_can_do_it_and_is_live_if_any_is(needed, among, strategy, state):
    able = capable(needed, among)
    if not able:
        with pytest.raises(NoCapableAgent):
            choose(needed, among, strategy, state)
        return
    decision = choose(needed, among, strategy, state)
    chosen = next(candidate for candidate in among if candidate.agent == decision.agent)
    assert chosen in able
    if any(candidate.slots for candidate in able):
        assert chosen.slots > 0
        assert not decision.waits_for_worker
    else:
        assert decision.waits_for_worker


@given(needed_sets, candidates, strategies, states, st.randoms())
def test_equal_input_gives_equal_choice_in_whatever_order_it_comes(
    needed, among, strategy, state, random
):
    if not capable(needed, among):
        return
    shuffled = list(among)
    random.shuffle(shuffled)
    first = choose(needed, among, strategy, state)
    assert choose(needed, shuffled, strategy, state) == first


@given(needed_sets, candidates, strategies, states)
def test_the_decision_tells_the_score_of_each_agent_it_weighed(needed, among, strategy, state):
    if not capable(needed, among):
        return
    decision = choose(needed, among, strategy, state)
    assert decision.scores[decision.agent] == min(decision.scores.values())
    stored = decision.to_document()
    assert stored["candidates"][0]["score"] == min(c["score"] for c in stored["candidates"])
    assert stored["reason"]


@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=6),
    st.sampled_from(["balanced", "least_busy"]),
)
def test_a_burst_between_two_snapshots_spreads_by_free_slots(slots, strategy):
    burst = 1000
    among = [
        Candidate(f"agent_{n}", frozenset({"nlp"}), slots=size, mean_run_s=0.5)
        for n, size in enumerate(slots)
    ]
    routed: Counter[str] = Counter()
    for turn in range(burst):
        routed[choose({"nlp"}, among, strategy, RoutingState(turn, routed)).agent] += 1
    for candidate in among:
        fair = burst * candidate.slots / sum(slots)
        assert abs(routed[candidate.agent] - fair) <= max(slots) + 1


def idle(agent: str, *capabilities: str, **load: float) -> Candidate:
    return Candidate(agent, frozenset(capabilities), **{"slots": 5, **load})


TWO = [
    idle("conversation", "nlp", "knowledge"),
    idle("quote", "pricing", "knowledge", "validation"),
]


@pytest.mark.parametrize(
    ("strategy", "among", "chosen"),
    [
        ("capability_match", TWO, "conversation"),
        ("balanced", TWO, "conversation"),
        ("balanced", [idle("a", "knowledge", held=5, mean_run_s=1.0), TWO[1]], "quote"),
        (
            "balanced",
            [
                idle("fast", "knowledge", held=5, queued=20, mean_run_s=0.01),
                idle("slow", "knowledge", held=5, queued=2, mean_run_s=10.0),
            ],
            "fast",
        ),
        ("least_busy", [idle("a", "knowledge", held=3), idle("b", "knowledge", held=2)], "b"),
        ("least_busy", [idle("a", "knowledge", slots=0), idle("b", "knowledge", queued=99)], "b"),
    ],
)  # fmt: skip
def test_a_strategy_weighs_what_it_says(strategy, among, chosen):
    assert choose({"knowledge"}, among, strategy, RoutingState()).agent == chosen


def test_round_robin_takes_turns():
    chosen = [
        choose({"knowledge"}, TWO, "round_robin", RoutingState(turn)).agent for turn in range(4)
    ]
    assert chosen == ["conversation", "quote", "conversation", "quote"]


def test_nobody_capable_is_said_with_what_was_asked():
    with pytest.raises(NoCapableAgent) as refused:
        choose({"teleportation"}, TWO, "balanced", RoutingState())
    assert refused.value.facts["capabilities"] == ["teleportation"]


@given(needed_sets, candidates, strategies, states, needed_sets)
def test_what_is_preferred_is_chosen_from_while_it_is_live(
    needed, among, strategy, state, preferred
):
    able = capable(needed, among)
    if not able:
        return
    decision = choose(needed, among, strategy, state, preferred)
    chosen = next(candidate for candidate in among if candidate.agent == decision.agent)
    if any(each.slots and preferred <= each.capabilities for each in able):
        assert preferred <= chosen.capabilities
        assert chosen.slots
    else:
        without = choose(needed, among, strategy, state)
        assert decision.agent == without.agent
        assert decision.scores == without.scores


def test_a_decision_says_what_became_of_a_preference():
    clever = Candidate("clever", frozenset({"nlp", "llm"}), slots=1, queued=50)
    plain = Candidate("plain", frozenset({"nlp"}), slots=1)
    asleep = Candidate("clever", frozenset({"nlp", "llm"}), slots=0)
    preferred = choose({"nlp"}, [clever, plain], "balanced", RoutingState(), {"llm"})
    assert preferred.agent == "clever"
    assert "preferred: llm" in preferred.reason
    fallen_back = choose({"nlp"}, [asleep, plain], "balanced", RoutingState(), {"llm"})
    assert fallen_back.agent == "plain"
    assert "none that is live has what is preferred: llm" in fallen_back.reason
