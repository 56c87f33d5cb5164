"""Calls that come at the same time are done as one, and each has its own answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.together import Together

DEADLINE_S = 10


class Work:
    """Doubles numbers; the first turn lasts until it is let go."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, asked: list[int]) -> list[int]:
        self.turns.append(list(asked))
        self.begun.set()
        assert self.go_on.wait(DEADLINE_S)
        if -1 in asked:
            raise ValueError("no")
        return [2 * n for n in asked]


@pytest.fixture
def work() -> Work:
    return Work()


def test_one_alone_is_done_at_once(work):
    work.go_on.set()
    together = Together(work, most=4)
    assert [together(n) for n in (1, 2)] == [2, 4]
    assert work.turns == [[1], [2]]


def waiting(together: Together, n: int) -> bool:
    return len(together._calls) == n


def test_those_who_come_meanwhile_share_the_next_turns_in_their_order(work, eventually):
    together = Together(work, most=3)
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(together, 0)]
        assert work.begun.wait(DEADLINE_S)
        for n in range(1, 6):
            answers.append(threads.submit(together, n))
            eventually(lambda n=n: waiting(together, n))
        work.go_on.set()
        assert [answer.result(DEADLINE_S) for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert work.turns == [[0], [1, 2, 3], [4, 5]]


def test_an_error_is_that_of_its_turn_only(work, eventually):
    together = Together(work, most=2)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(together, 0)
        assert work.begun.wait(DEADLINE_S)
        rest = []
        for n, asked in enumerate((-1, 1, 2), start=1):
            rest.append(threads.submit(together, asked))
            eventually(lambda n=n: waiting(together, n))
        work.go_on.set()
        assert first.result(DEADLINE_S) == 0
        for failed in rest[:2]:
            with pytest.raises(ValueError, match="no"):
                failed.result(DEADLINE_S)
        assert rest[2].result(DEADLINE_S) == 4


def test_many_threads_get_each_their_own_answer():
    together = Together(lambda asked: [n * n for n in asked], most=7)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(together, range(2000))) == [n * n for n in range(2000)]
