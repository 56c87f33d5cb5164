"""The judge of the torture runs sees what it is there to see: each kind of wrong, alone."""

import dataclasses
import itertools
from collections import Counter

import pytest
from torture.load import Answer, Job, Sent, jobs
from torture.oracle import Entry, Oracle
from torture.schedule import kinds, plan
from torture.verdict import (
    SEVERAL,
    Disturbance,
    Stored,
    judge,
    longest_recoveries,
    repeated_runs,
    slowest,
)


def accepted(job: Job, task: str, at: float, **more) -> Sent:
    return Sent(job, [Answer(at, 202, task, **more)], tries=1)


def began(key: str, task: str, at: float, **more) -> Entry:
    return Entry(at, "began", key, {"task": task, "phase": 0, "failures": 0} | more)


def effect(key: str, task: str, at: float, what: str = "effect", **more) -> Entry:
    return Entry(at, what, key, {"task": task} | more)


def done(task: str, **more) -> Stored:
    return Stored(
        **{
            "id": task,
            "state": "completed",
            "attempts": 1,
            "result": {"attempt": 1},
            "events": ("accepted", "claimed", "completed"),
        }
        | more
    )


MESSAGES = [Job(f"s/{n}", "chat-sending", 10, session="s", n=n) for n in (1, 2, 3)]
PLAIN, REFUSED = Job("t.1", "plain", 10), Job("t.2", "refusing", 10)


class World:
    """A run that kept its promise, to be spoilt in one way by each test."""

    def __init__(self) -> None:
        self.sent = [accepted(job, f"m{job.n}", job.n) for job in MESSAGES]
        self.sent += [accepted(PLAIN, "p", 1.0), accepted(REFUSED, "r", 1.0)]
        self.seen = [began("t.1", "p", 1.1), effect("t.1", "p", 1.2), began("t.2", "r", 1.1)]
        self.stored = {"p": done("p")}
        self.stored["r"] = done(
            "r", state="failed", result=None, events=("accepted", "claimed", "failed")
        )
        self.outbox = {}
        for job in MESSAGES:
            task, at = f"m{job.n}", job.n + 0.1
            self.seen.append(began(job.key, task, at))
            self.seen.append(effect(job.key, task, at + 0.1, place=job.n))
            self.stored[task] = done(task)
            for channel in ("sure", "blind"):
                key = f"{job.key}/{channel}"
                self.seen.append(effect(key, f"{task}.0", at + 0.2))
                self.outbox[key] = "sent"

    def judged(self):
        return judge(self.sent, self.seen, self.stored, self.outbox)

    def wrong(self) -> set[str]:
        return {name for name, lines in self.judged().faults.items() if lines}

    def forget(self, key: str, what: str = "effect") -> None:
        self.seen = [e for e in self.seen if (e.key, e.what) != (key, what)]

    def at(self, key: str, at: float, what: str = "effect", **facts) -> None:
        self.seen = [
            dataclasses.replace(e, at=at, facts=e.facts | facts) if (e.key, e.what) == (key, what)
            else e
            for e in self.seen
        ]  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


def test_a_run_that_kept_its_promise_is_good(world):
    verdict = world.judged()
    assert verdict.good
    assert (verdict.accepted, verdict.completed, verdict.failed_as_planned) == (5, 4, 1)


def test_a_run_in_which_nothing_was_accepted_is_not_good():
    assert not judge([], [], {}, {}).good


@pytest.mark.parametrize("key", ["t.1", "s/2"])
def test_an_effect_that_never_came_is_lost(world, key):
    world.forget(key)
    assert "lost" in world.wrong()


def test_an_accepted_task_that_is_not_stored_is_lost(world):
    del world.stored["p"]
    assert world.wrong() == {"lost"}


def test_a_dead_letter_that_nobody_planned_is_lost(world):
    world.stored["p"] = done("p", state="failed", events=("accepted", "failed"))
    assert world.wrong() == {"lost"}


@pytest.mark.parametrize("state", ["queued", "running", "blocked", "waiting"])
def test_what_is_not_final_is_left_unfinished(world, state):
    world.stored["x"] = done("x", state=state, events=("accepted",))
    assert world.wrong() == {"left unfinished"}


def test_a_second_effect_is_doubled_and_the_same_one_again_is_not(world):
    world.seen.append(effect("t.1", "p", 2.0, what="again"))
    assert world.judged().good
    world.seen.append(effect("t.1", "p2", 2.0, what="second"))
    assert world.wrong() == {"doubled"}


def test_a_request_that_was_accepted_twice_is_doubled(world):
    world.sent[3].answers.append(Answer(1.5, 202, "p2"))
    world.stored["p2"] = done("p2")
    assert world.wrong() == {"doubled"}


def test_an_effect_of_another_task_than_the_accepted_one_is_doubled(world):
    world.at("t.1", 1.2, task="p2")
    assert world.wrong() == {"doubled"}


def test_two_replies_to_one_message_are_doubled(world):
    world.stored["m1"] = done("m1", result={"attempt": 1, "text": "one"})
    world.sent[0].answers += [Answer(1.5, 200, "m1", "one"), Answer(1.6, 200, "m1", "two")]
    assert world.wrong() == {"doubled"}


def test_a_stored_reply_that_is_not_the_one_that_was_sent_is_doubled(world):
    world.stored["m1"] = done("m1", result={"attempt": 1, "text": "two"})
    world.sent[0].answers.append(Answer(1.5, 200, "m1", "one"))
    assert world.wrong() == {"doubled"}


def test_a_task_that_ended_twice_is_doubled(world):
    world.stored["p"] = done("p", events=("accepted", "completed", "completed"))
    assert world.wrong() == {"doubled"}


def test_a_result_that_an_older_attempt_wrote_over_is_doubled(world):
    world.stored["p"] = done("p", attempts=2)
    assert world.wrong() == {"doubled"}


def test_effects_of_a_session_that_change_places_are_out_of_order(world):
    world.at("s/2", 3.4)
    world.at("s/2", 2.1, what="began")
    assert "out of order" in world.wrong()


def test_a_run_that_began_before_the_one_in_front_had_its_effect_is_out_of_order(world):
    world.at("s/3", 2.15, what="began")
    assert world.wrong() == {"out of order"}


def test_a_message_that_took_another_place_is_out_of_order(world):
    world.at("s/3", 3.2, place=4)
    assert world.wrong() == {"out of order"}


def test_a_cancelled_message_may_have_been_counted_or_not(world):
    maybe = Job("s/2", "chat-cancelled", 10, session="s", n=2)
    world.sent[1] = accepted(maybe, "m2", 2.0)
    world.stored["m2"] = done("m2", state="cancelled", result=None, events=("cancelled",))
    for channel in ("sure", "blind"):
        world.forget(f"s/2/{channel}")
    world.forget("s/2")
    assert world.wrong() == set()
    world.at("s/3", 3.2, place=2)
    assert world.wrong() == set()
    world.at("s/3", 3.2, place=1)
    assert world.wrong() == {"out of order"}


def test_an_outgoing_effect_that_never_left_is_lost(world):
    world.forget("s/2/sure")
    assert world.wrong() == {"lost"}


def test_an_uncertain_effect_may_have_left_or_not_on_the_blind_channel_only(world):
    world.forget("s/2/blind")
    world.outbox |= {"s/2/blind": "uncertain", "s/3/blind": "uncertain"}
    assert world.judged().good
    assert world.judged().uncertain == 2
    world.outbox["s/1/sure"] = "uncertain"
    assert not world.judged().good


def test_what_left_without_a_commit_is_wrong(world):
    world.seen.append(effect("s/4/sure", "m4.0", 9.0))
    world.sent.append(accepted(Job("s/4", "chat", 10, session="s", n=4), "m4", 4.0))
    world.seen += [began("s/4", "m4", 4.1), effect("s/4", "m4", 4.2, place=4)]
    world.stored["m4"] = done("m4")
    assert world.wrong() == {"answered wrongly"}


def test_outgoing_effects_that_change_places_are_out_of_order(world):
    world.at("s/1/sure", 9.0)
    assert world.wrong() == {"out of order"}


def test_an_entry_that_waits_is_left_unfinished(world):
    world.outbox["s/1/sure"] = "pending"
    assert world.wrong() == {"left unfinished"}


def test_a_job_without_a_sure_answer_is_told(world):
    world.sent.append(Sent(Job("t.9", "plain", 10), [], tries=4))
    assert world.wrong() == {"never answered"}


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_an_error_is_a_wrong_answer(world, status):
    world.sent[3].answers.append(Answer(1.5, status, "p"))
    assert world.wrong() == {"answered wrongly"}


def test_what_was_to_fail_and_did_not_is_wrong(world):
    world.stored["r"] = done("r")
    assert world.wrong() == {"answered wrongly"}


def test_runs_are_repeated_within_one_phase_of_one_try(world):
    seen = [began("t.1", "p", 1.0), began("t.1", "p", 1.1, phase=1)]
    seen += [began("t.1", "p", 1.2, failures=1)]
    assert repeated_runs(seen) == 0
    assert repeated_runs([*seen, began("t.1", "p", 1.3)]) == 1


def test_recovery_is_measured_from_the_fault_and_told_apart_where_several_overlap():
    job = Job("t.1", "plain", 1000)
    sent, seen = [accepted(job, "p", 10.0)], [effect("t.1", "p", 20.0)]
    one = Disturbance("killed", 12.0, 12.0)
    assert longest_recoveries([one], sent, seen) == {"killed": 7.0}
    other = Disturbance("emptied", 15.0, 15.0)
    assert longest_recoveries([one, other], sent, seen) == {
        "killed": 0.0, "emptied": 0.0, SEVERAL: 7.0
    }  # fmt: skip
    assert slowest(sent, seen) == [(9.0, sent[0])]


def test_the_oracle_tells_the_same_effect_from_another_one():
    oracle = Oracle()
    oracle.began("k", {"task": "a"})
    assert oracle.put("k", {"task": "a"})
    assert oracle.put("k", {"task": "a"})
    assert not oracle.put("k", {"task": "b"})
    assert [e.what for e in oracle.entries()] == ["began", "effect", "again", "second"]
    assert oracle.effects == 1


def test_the_schedule_follows_from_its_seed_and_never_breaks_one_thing_twice_at_once():
    all_kinds = kinds(lease_s=8.0)
    faults = plan(7, 1800, (5, 15), all_kinds)
    assert faults == plan(7, 1800, (5, 15), all_kinds)
    assert faults != plan(8, 1800, (5, 15), all_kinds)
    assert {fault.kind for fault in faults} == {kind.name for kind in all_kinds}
    assert max(fault.ends_s for fault in faults) <= 1800
    for target in {fault.target for fault in faults}:
        of_it = [fault for fault in faults if fault.target == target]
        for one, next_one in itertools.pairwise(of_it):
            assert one.ends_s < next_one.at_s


def test_the_load_follows_from_its_seed_and_has_a_key_for_each_job():
    drawn = [
        list(itertools.islice(jobs(3, client, poison=True), 2000)) for client in range(3)
    ]  # fmt: skip
    assert drawn[1] == list(itertools.islice(jobs(3, 1, poison=True), 2000))
    every = [job for of_client in drawn for job in of_client]
    assert len({job.key for job in every}) == len(every)
    kinds_drawn = Counter(job.kind for job in every)
    assert {"plain", "asking", "stumbling", "slow", "poison", "refusing"} <= kinds_drawn.keys()
    assert {"chat", "chat-sending", "chat-poison", "chat-cancelled"} <= kinds_drawn.keys()
    session = [job.n for job in drawn[1] if job.session == "s1-2"]
    assert session == list(range(1, len(session) + 1))
