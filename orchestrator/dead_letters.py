"""Tasks that came to nothing: looked at, run once more, or discarded, by people.

Keeps secret what running a task once more takes, so that nothing takes effect twice. A replay
is the same task: its handler finds by the task's id what it has committed, its completed
children stay completed, and only those that failed run again, under their own ids.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from orchestrator.audit import Audit
from orchestrator.context import Sessions
from orchestrator.coordinator import Coordinator
from orchestrator.errors import AlreadyInEffect, Conflict, NotADeadLetter
from orchestrator.tasks import Task, TaskFilter, TaskStore

Document = dict[str, Any]

PAGE = 100
ENDS = ("completed", "failed", "retried", "handed_back", "taken_back", "waiting", "cancelled")


def attempts(task: Task) -> list[Document]:
    """Every attempt that the timeline still tells of, oldest first:

    {attempt, worker, started_at, ended_at, outcome, error: {code, detail, ...} | null}. The
    outcome is the event that ended it, null while it runs.
    """
    told: list[Document] = []
    for event in task.timeline:
        if event["event"] == "claimed":
            told.append(
                {
                    "worker": event["worker"],
                    "started_at": event["at"],
                    "ended_at": None,
                    "outcome": None,
                    "error": None,
                }
            )
        elif event["event"] in ENDS and told and told[-1]["outcome"] is None:
            told[-1] |= {
                "ended_at": event["at"],
                "outcome": event["event"],
                "error": _error(event),
            }
    first = task.attempts - len(told) + 1
    return [{"attempt": first + n} | each for n, each in enumerate(told)]


def _error(event: Document) -> Document | None:
    if event["event"] == "taken_back":
        return {"code": "worker_lost", "detail": "Its worker died, or could not be heard."}
    if "code" not in event:
        return None
    return {name: event[name] for name in ("code", "detail", "facts") if name in event}


class DeadLetters:
    """List, show, replay and discard. Raises StoreUnavailable as the task store does."""

    def __init__(
        self, store: TaskStore, coordinator: Coordinator, sessions: Sessions, audit: Audit
    ) -> None:
        self._store = store
        self._coordinator = coordinator
        self._sessions = sessions
        self._audit = audit

    def page(
        self, wanted: TaskFilter, limit: int, position: str | None = None
    ) -> tuple[list[Task], str | None]:
        """As `TaskStore.page`, of dead letters only."""
        return self._store.page(replace(wanted, dead=True), limit, position)

    def get(self, task_id: str) -> Task:
        """One dead letter.

        Raises:
            TaskNotFound: no such task.
            NotADeadLetter: it is none, or none any more.
        """
        task = self._store.get(task_id)
        if not task.dead:
            raise NotADeadLetter(task_id=task.id, state=task.state.value)
        return task

    def replay(self, task_id: str, *, by: str) -> Task:
        """Let a dead letter run once more.

        Raises:
            TaskNotFound, NotADeadLetter: nothing to replay.
            AlreadyInEffect: it is a message that was answered, or too old to tell.
        """
        with self._audit.act(by, "dead_letter.replay", task_id):
            return self._replay(self.get(task_id), by)

    def discard(self, task_id: str, *, by: str) -> Task:
        """Take a dead letter out of the list, for good.

        Raises:
            TaskNotFound, NotADeadLetter: nothing to discard.
        """
        with self._audit.act(by, "dead_letter.discard", task_id):
            return self._discard(self.get(task_id), by)

    def replay_all(self, wanted: TaskFilter, limit: int, *, by: str) -> Document:
        """Replay those that a filter finds, the newest `limit` of them, the oldest first.

        Returns {done, refused: [{id, code}], more}: `more` where the limit ended it.
        """
        return self._each("dead_letter.replay_all", self._replay, wanted, limit, by)

    def discard_all(self, wanted: TaskFilter, limit: int, *, by: str) -> Document:
        """Discard those that a filter finds; as `replay_all`."""
        return self._each("dead_letter.discard_all", self._discard, wanted, limit, by)

    def _each(
        self,
        action: str,
        act: Callable[[Task, str], Task],
        wanted: TaskFilter,
        limit: int,
        by: str,
    ) -> Document:
        asked = {
            name: value.isoformat() if isinstance(value, dt.datetime) else value
            for name, value in vars(wanted).items()
            if value is not None
        }
        with self._audit.act(by, action, None, **asked, limit=limit) as outcome:
            found = list(islice(self._ids(wanted), limit + 1))
            outcome |= {"done": 0, "refused": [], "more": len(found) > limit}
            # In the order in which they were accepted: messages of one conversation keep it.
            found = sorted(found[:limit])
            for start in range(0, len(found), PAGE):
                chunk = found[start : start + PAGE]
                tasks = self._store.many(chunk)
                for task_id in chunk:
                    try:
                        if task_id not in tasks or not tasks[task_id].dead:
                            raise NotADeadLetter()
                        act(tasks[task_id], by)
                    except Conflict as error:
                        outcome["refused"].append({"id": task_id, "code": error.code})
                    else:
                        outcome["done"] += 1
            return outcome

    def _ids(self, wanted: TaskFilter) -> Iterator[str]:
        position: str | None = None
        while True:
            tasks, position = self.page(wanted, PAGE, position)
            yield from (task.id for task in tasks)
            if position is None:
                return

    def _replay(self, task: Task, by: str) -> Task:
        if self._sessions.may_have_answered(task):
            raise AlreadyInEffect(task_id=task.id)
        replayed = self._coordinator.replay(task, by=by)
        if replayed is None:
            raise NotADeadLetter(task_id=task.id)
        return replayed

    def _discard(self, task: Task, by: str) -> Task:
        discarded = self._store.discard(task, by=by)
        if discarded is None:
            raise NotADeadLetter(task_id=task.id)
        return discarded
