"""Calls of several threads that come at the same time, done as one.

Whoever finds nobody at work begins at once, and does all that has come by then; who comes
while work goes on waits for the next turn. So an idle process waits for nothing, and a busy one
makes one round trip for many: what databases call group commit.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Call(Generic[Asked, Answer]):
    asked: Asked
    turn: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    answer: Answer | None = None
    error: BaseException | None = None


class Together(Generic[Asked, Answer]):
    """`do` answers several at once, in their order; at most `most` of them.

    What `do` raises, all of them raise: their outcome is that of one call.
    """

    def __init__(self, do: Callable[[Sequence[Asked]], Sequence[Answer]], most: int) -> None:
        self._do = do
        self._most = most
        self._lock = threading.Lock()
        self._calls: list[_Call[Asked, Answer]] = []
        self._at_work = False

    def __call__(self, asked: Asked) -> Answer:
        """The answer to this one, when its turn was."""
        call: _Call[Asked, Answer] = _Call(asked)
        with self._lock:
            self._calls.append(call)
            waits, self._at_work = self._at_work, True
        if waits:
            call.turn.wait()
        if not call.done:
            self._take_turn()
        if call.error is not None:
            raise call.error
        return call.answer  # type: ignore[return-value]  # done without an error

    def _take_turn(self) -> None:
        with self._lock:
            turn, self._calls = self._calls[: self._most], self._calls[self._most :]
        try:
            answers = self._do([call.asked for call in turn])
            for call, answer in zip(turn, answers, strict=True):
                call.answer = answer
        except BaseException as error:
            for call in turn:
                call.error = error
        with self._lock:
            following = self._calls[0] if self._calls else None
            self._at_work = following is not None
        for call in turn:
            call.done = True
            call.turn.set()
        if following is not None:
            following.turn.set()
