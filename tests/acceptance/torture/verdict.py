"""What follows from what was sent, seen and stored. Pure: values in, a verdict out.

Nothing here trusts the system under test: what took place is what the oracle saw, what was
promised is what clients were told, and only the rest is read from the task store.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torture.load import BLIND, SURE, Sent
from torture.oracle import Entry

FINAL = ("completed", "failed", "cancelled")
# Between a fault and the end of a job that it held up, another one began.
SEVERAL = "several at once"


@dataclass(frozen=True)
class Stored:
    """A task as the store has it after the run."""

    id: str
    state: str
    attempts: int = 0
    result: Any = None
    error: Mapping[str, Any] | None = None
    events: tuple[str, ...] = ()


@dataclass
class Verdict:
    """What was found. Every list is of lines for people; all but the figures must be empty."""

    accepted: int = 0
    completed: int = 0
    failed_as_planned: int = 0
    cancelled: int = 0
    repeated_runs: int = 0
    uncertain: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    wrong_answers: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    longest_recovery_s: dict[str, float] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not be, by name."""
        return {
            "lost": self.lost,
            "doubled": self.doubled,
            "out of order": self.out_of_order,
            "left unfinished": self.unfinished,
            "never answered": self.unanswered,
            "answered wrongly": self.wrong_answers,
            "left behind": self.left_behind,
        }

    @property
    def good(self) -> bool:
        """The promise was kept, and something was promised."""
        return self.accepted > 0 and not any(self.faults.values())


def judge(
    sent: Sequence[Sent],
    seen: Sequence[Entry],
    stored: Mapping[str, Stored] | None,
    outbox: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict on a run.

    `stored` is every task, `outbox` the state of each outgoing effect; None where there is no
    such store.
    """
    verdict = Verdict()
    effects = {entry.key: entry for entry in seen if entry.what == "effect"}
    verdict.repeated_runs = repeated_runs(seen)
    verdict.doubled += [
        f"{entry.key}: {dict(effects[entry.key].facts)} and {dict(entry.facts)}"
        for entry in seen
        if entry.what == "second"
    ]
    for each in sent:
        _judge_job(verdict, each, effects, stored)
    verdict.out_of_order += out_of_order(sent, seen, effects)
    if outbox is not None:
        _judge_outbox(verdict, sent, effects, outbox)
    for task in (stored or {}).values():
        _judge_task(verdict, task)
    return verdict


def _judge_job(
    verdict: Verdict,
    sent: Sent,
    effects: Mapping[str, Entry],
    stored: Mapping[str, Stored] | None,
) -> None:
    job = sent.job
    if not sent.answers:
        verdict.unanswered.append(f"{job.key}: no sure answer after {sent.tries} tries")
        return
    told = {answer.task for answer in sent.answers}
    statuses = {answer.status for answer in sent.answers}
    # A dead letter is told as such; nothing else is an error to a client.
    if not (statuses <= {200, 202} or (statuses <= {200, 202, 500} and not job.must_have_effect)):
        verdict.wrong_answers.append(f"{job.key} ({job.kind}): answered {sorted(statuses)}")
    replies = {answer.reply for answer in sent.answers if answer.reply is not None}
    if len(replies) > 1:
        verdict.doubled.append(f"{job.key}: replies {sorted(replies)}")
    if len(told) > 1:
        verdict.doubled.append(f"{job.key}: accepted as {sorted(map(str, told))}")
    if None in told:
        return
    verdict.accepted += 1
    task_id = next(iter(told))
    effect = effects.get(job.key)
    if effect is not None and effect.facts["task"] not in told:
        verdict.doubled.append(f"{job.key}: accepted as {told}, done by {effect.facts['task']}")
    if stored is None:
        verdict.completed += effect is not None
        if effect is None and job.must_have_effect:
            verdict.lost.append(f"{job.key} ({job.kind})")
        return
    task = stored.get(task_id)
    if task is None:
        verdict.lost.append(f"{job.key} ({job.kind}): {task_id} is not stored")
        return
    verdict.completed += task.state == "completed"
    verdict.cancelled += task.state == "cancelled"
    if job.must_fail:
        verdict.failed_as_planned += task.state == "failed"
        if task.state == "completed" or effect is not None:
            verdict.wrong_answers.append(f"{job.key} ({job.kind}): it ended as {task.state}")
        return
    if task.state not in FINAL:
        return  # told of as unfinished
    must = job.must_have_effect or task.state == "completed"
    if must and (effect is None or task.state != "completed"):
        took_place = "no effect" if effect is None else "an effect"
        verdict.lost.append(
            f"{job.key} ({job.kind}): {task_id} {task.state}, {took_place}, {task.error or ''}"
        )
    text = task.result.get("text") if isinstance(task.result, Mapping) else None
    if replies and text not in replies:
        verdict.doubled.append(f"{job.key}: replied {sorted(replies)}, stored {text!r}")


def _judge_task(verdict: Verdict, task: Stored) -> None:
    if task.state not in FINAL:
        verdict.unfinished.append(f"{task.id} is {task.state}: {', '.join(task.events[-6:])}")
        return
    ends = [event for event in task.events if event in FINAL]
    if ends != [task.state]:
        verdict.doubled.append(f"{task.id} is {task.state}, and ended by {ends}")
    if task.state == "completed" and isinstance(task.result, Mapping):
        wrote = task.result.get("attempt", task.attempts)
        # A worker that was given up for dead woke up and overwrote.
        if wrote != task.attempts:
            verdict.doubled.append(
                f"{task.id}: attempt {wrote} of {task.attempts} wrote the result"
            )


def _judge_outbox(
    verdict: Verdict,
    sent: Sequence[Sent],
    effects: Mapping[str, Entry],
    outbox: Mapping[str, str],
) -> None:
    """What leaves by the outbox: once where a repetition is known, at most once where not, and
    then either it took place or people are told that nobody knows. In order, both."""
    for channel in (SURE, BLIND):
        last: dict[str, Entry] = {}
        for each in sorted(sent, key=lambda each: (each.job.session or "", each.job.n)):
            job, key = each.job, f"{each.job.key}/{channel}"
            effect, state = effects.get(key), outbox.get(key)
            committed = job.sends and job.key in effects
            if not committed:
                if effect is not None:
                    verdict.wrong_answers.append(f"{key} left, and was not committed")
                continue
            unknown = channel == BLIND and state == "uncertain"
            verdict.uncertain += unknown
            if state in ("pending", "sending"):
                verdict.unfinished.append(f"{key} is {state} in the outbox")
            elif effect is None and not unknown:
                verdict.lost.append(f"{key}: no effect, {state} in the outbox")
            elif effect is not None and state != "sent" and not unknown:
                verdict.wrong_answers.append(f"{key} has left, and is {state} in the outbox")
            if effect is None:
                continue
            before = last.get(job.session)
            if before is not None and effect.at < before.at:
                verdict.out_of_order.append(f"{key} left before {before.key}")
            last[job.session] = effect


def repeated_runs(seen: Iterable[Entry]) -> int:
    """How many runs began beyond the one that each phase of each try of a job needs."""
    runs = Counter(
        (entry.key, entry.facts.get("task"), entry.facts.get("phase"), entry.facts.get("failures"))
        for entry in seen
        if entry.what == "began"
    )
    return sum(runs.values()) - len(runs)


def out_of_order(
    sent: Iterable[Sent], seen: Iterable[Entry], effects: Mapping[str, Entry]
) -> list[str]:
    """What broke the order of a session.

    Its messages were accepted one after the other, so: their effects arrive in that order, no
    run of one begins before the effects of all before it, and each found its place in the
    session's state taken by those before it and nobody else.
    """
    sessions: dict[str, list[Sent]] = defaultdict(list)
    for each in sent:
        if each.job.session is not None and each.accepted_at is not None:
            sessions[each.job.session].append(each)
    first_run: dict[str, float] = {}
    for entry in seen:
        if entry.what == "began":
            first_run.setdefault(entry.key, entry.at)
    found = []
    for messages in sessions.values():
        messages.sort(key=lambda each: each.job.n)
        before: Entry | None = None
        gaps = 0
        for each in messages:
            key = each.job.key
            began_at = first_run.get(key)
            if before is not None and began_at is not None and began_at < before.at:
                found.append(f"{key} began before {before.key} had its effect")
            effect = effects.get(key)
            if effect is None:
                # One that need not have one may have been counted, and cancelled after that.
                gaps += not (each.job.must_have_effect or each.job.must_fail)
                continue
            if before is not None and effect.at < before.at:
                found.append(f"{key} had its effect before {before.key}")
            place = effect.facts.get("place")
            if place is not None:
                least = 1 + (before.facts["place"] if before is not None else 0)
                if not least <= place <= least + gaps:
                    found.append(f"{key} is number {place} of its session, and not {least}")
            before, gaps = effect, 0
    return found


@dataclass(frozen=True)
class Disturbance:
    """A fault as recovery is measured from it: at `since` the system was left to itself.

    It began at `began_at`. `door`: the way in was broken, and recovery is the next acceptance.
    """

    kind: str
    began_at: float
    since: float
    door: bool = False


def deaths_by_poison(sent: Sequence[Sent], seen: Sequence[Entry]) -> list[Disturbance]:
    """The times when a job killed its process: faults that no schedule tells of."""
    poison = {each.job.key: each.job.pause_ms / 1000 for each in sent if "poison" in each.job.kind}
    died_at = [
        entry.at + poison[entry.key]
        for entry in seen
        if entry.what == "began" and entry.key in poison
    ]
    return [Disturbance("process killed by its task", at, at) for at in died_at]


def slowest(sent: Iterable[Sent], seen: Iterable[Entry]) -> list[tuple[float, Sent]]:
    """From acceptance to effect, less what the handler takes, in seconds; the longest first."""
    effects = {entry.key: entry.at for entry in seen if entry.what == "effect"}
    waits = [
        (effects[each.job.key] - each.accepted_at - each.job.pause_ms / 1000, each)
        for each in sent
        if each.accepted_at is not None and each.job.key in effects
    ]
    return sorted(waits, key=lambda wait: -wait[0])


def longest_recoveries(
    disturbances: Sequence[Disturbance], sent: Sequence[Sent], seen: Sequence[Entry]
) -> dict[str, float]:
    """By kind: how long at most what had been accepted waited for its effect, in seconds.

    From the fault (or its end, where nobody could have gone on before) to the effect, less
    the time that the job's handler takes anyway. A wait in which another fault began counts as
    "several at once", from the first of them. Poisoned sessions and jobs that pause by
    themselves tell nothing about recovery, and are left out.
    """
    effects = {entry.key: entry.at for entry in seen if entry.what == "effect"}
    poisoned = {each.job.session for each in sent if each.job.kind == "chat-poison"}
    waits = []
    for each in sent:
        done_at, accepted_at = effects.get(each.job.key), each.accepted_at
        if done_at is None or accepted_at is None or "stumbling" in each.job.kind:
            continue
        if each.job.session is None or each.job.session not in poisoned:
            waits.append((accepted_at, done_at, each.job.pause_ms / 1000))
    longest = {disturbance.kind: 0.0 for disturbance in disturbances}
    accepted = sorted(at for each in sent if (at := each.accepted_at) is not None)
    begins = sorted(disturbance.began_at for disturbance in disturbances)
    for disturbance in disturbances:
        since = disturbance.since
        if disturbance.door:
            following = next((at for at in accepted if at > since), since)
            longest[disturbance.kind] = max(longest[disturbance.kind], following - since)
            continue
        for accepted_at, done_at, takes_s in waits:
            if not accepted_at < since < done_at:
                continue
            alone = not any(
                accepted_at - takes_s < at < done_at and at != disturbance.began_at for at in begins
            )
            kind = disturbance.kind if alone else SEVERAL
            longest[kind] = max(longest.get(kind, 0.0), done_at - since - takes_s)
    return longest
