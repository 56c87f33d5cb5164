"""Which jobs are sent, a function of the seed; and how: as clients that never give up.

A client sends one job after the other. Each has an idempotency key; whatever is not answered
for sure (no connection, 409, 429, 503) is sent again under the same key until it is.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

CLIENTS = 24
RETRY_S = 0.3
# Of each 1,000 jobs of a client that submits tasks; the rest is plain.
TASKS = {"asking": 150, "stumbling": 60, "slow": 12, "cancelled": 15, "late": 15, "refusing": 10}
# Of each 1,000 messages of a session.
MESSAGES = {
    "chat-sending": 250,
    "chat-asking": 80,
    "chat-stumbling": 40,
    "chat-cancelled": 10,
}
# Where a "chat-sending" has effects beside its own: on a channel that knows a repetition, and
# on one that does not.
SURE, BLIND = "sure", "blind"
# These have none of their own, or need not have it.
FAILS = {"refusing", "poison"}
# A poisonous message does no harm where it is answered with the one in front of it.
MAY_END_EITHER_WAY = {"cancelled", "late", "chat-cancelled", "chat-poison"}


@dataclass(frozen=True)
class Job:
    """What a client asks for. Of a session, `n` is its place from 1."""

    key: str
    kind: str
    pause_ms: int
    wait_s: float = 0.0
    session: str | None = None
    n: int = 0

    @property
    def must_have_effect(self) -> bool:
        """Whether a run without its effect has lost it."""
        return self.kind not in FAILS | MAY_END_EITHER_WAY

    @property
    def sends(self) -> bool:
        """Whether its commit lets something leave by the outbox."""
        return self.kind == "chat-sending"

    @property
    def must_fail(self) -> bool:
        """Whether it is to end as a dead letter."""
        return self.kind in FAILS


@dataclass(frozen=True)
class Answer:
    """A sure answer. `reply` is the text of the chat's reply where it came in time."""

    at: float
    status: int
    task: str | None
    reply: str | None = None


@dataclass
class Sent:
    """A job and what came of sending it."""

    job: Job
    answers: list[Answer] = field(default_factory=list)
    tries: int = 0

    @property
    def accepted_at(self) -> float | None:
        """When its client first knew."""
        return min((a.at for a in self.answers if a.task is not None), default=None)


class Way(Protocol):
    """How one client's jobs get to the system."""

    def send(self, job: Job) -> Answer | None:
        """One try; None where the outcome is not known, or it was refused for now."""

    def cancel(self, answer: Answer) -> None:
        """Ask once for its end, come what may."""

    def close(self) -> None:
        """Close connections."""


def jobs(seed: int, client: int, *, poison: bool) -> Iterator[Job]:
    """The jobs of a client, without end: two in three clients hold conversations."""
    rng = random.Random(f"load {seed} {client}")
    if client % 3:
        session_n = 0
        while True:
            session_n += 1
            session = f"s{client}-{session_n}"
            for n in range(1, rng.randint(5, 25) + 1):
                kind = _drawn(rng, MESSAGES, "chat")
                yield Job(
                    key=f"{session}/{n}",
                    kind=kind,
                    pause_ms=rng.randint(5, 120),
                    wait_s=5.0 if rng.random() < 0.25 else 0.0,
                    session=session,
                    n=n,
                )
            if poison and client == 1 and session_n % 4 == 1:
                # What came before it is answered, and what comes after it waits for its end.
                yield Job(f"{session}/{n + 1}", "chat-poison", 50, 0.0, session, n + 1)
                yield Job(f"{session}/{n + 2}", "chat", 50, 0.0, session, n + 2)
    task_n = 0
    while True:
        task_n += 1
        kind = _drawn(rng, TASKS, "plain")
        if poison and client == 0 and task_n % 60 == 20:
            kind = "poison"
        pause_ms = rng.randint(2000, 7000) if kind == "slow" else rng.randint(5, 150)
        yield Job(f"t{client}.{task_n}", kind, pause_ms)


def _drawn(rng: random.Random, odds: dict[str, int], otherwise: str) -> str:
    drawn = rng.randrange(1000)
    for kind, share in odds.items():
        drawn -= share
        if drawn < 0:
            return kind
    return otherwise


class Load:
    """Clients in threads, which keep a pace together until `stop`.

    `failed` is what ended a client that should not have ended.
    """

    def __init__(
        self, seed: int, per_s: float, open_way: Callable[[], Way], *, poison: bool
    ) -> None:
        self._seed = seed
        self._pause_s = CLIENTS / per_s
        self._open_way = open_way
        self._poison = poison
        self._lock = threading.Lock()
        self._sent: list[Sent] = []
        self._no_more = threading.Event()
        self._give_up = threading.Event()
        self.failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(n,), name=f"client-{n}", daemon=True)
            for n in range(CLIENTS)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float) -> None:
        """Begin no new job; wait until those that were begun are answered for sure."""
        self._no_more.set()
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        self._give_up.set()

    def sent(self) -> list[Sent]:
        """Every job that was begun."""
        with self._lock:
            return list(self._sent)

    def _run(self, client: int) -> None:
        rng = random.Random(f"pace {self._seed} {client}")
        way = self._open_way()
        try:
            self._no_more.wait(rng.uniform(0, self._pause_s))
            for job in jobs(self._seed, client, poison=self._poison):
                if self._no_more.is_set():
                    return
                due = time.monotonic() + rng.uniform(0.5, 1.5) * self._pause_s
                self._send(way, job, rng)
                self._no_more.wait(max(0.0, due - time.monotonic()))
        except BaseException as error:
            self.failed.append(error)
            raise
        finally:
            way.close()

    def _send(self, way: Way, job: Job, rng: random.Random) -> None:
        sent = Sent(job)
        with self._lock:
            self._sent.append(sent)
        # Some send again what was answered, as clients do that lost the answer.
        answers_wanted = 2 if rng.random() < 0.05 else 1
        while len(sent.answers) < answers_wanted and not self._give_up.is_set():
            sent.tries += 1
            answer = way.send(job)
            if answer is None:
                self._give_up.wait(rng.uniform(0.5, 1.5) * RETRY_S)
                continue
            sent.answers.append(answer)
        if "cancelled" in job.kind and sent.answers:
            way.cancel(sent.answers[0])


def described(job: Job) -> dict[str, Any]:
    """The payload of a task that is no message."""
    return {"key": job.key, "pause_ms": job.pause_ms}
