"""What happens to tasks and sessions, for those who watch them live.

Keeps secret how hundreds of watchers cost a few queries a second: announcements wake those
whose task or session they name, and one sweep a second compares, for everything that is
watched, what the store holds with what its watchers have seen. What is announced and what is
swept only says *that* something is new; watchers read it from the store, so nothing depends
on what Redis remembers.

Reads `tasks`, `sessions`, `messages` and `runs`; writes what reading messages writes.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo.database import Database

from orchestrator.context import Message, Sessions, ordering_key
from orchestrator.errors import NotFound
from orchestrator.logs import log
from orchestrator.replies import Replies
from orchestrator.tasks import Document, Task, TaskStore, store_errors

if TYPE_CHECKING:
    from orchestrator.workflows import StoredRun, Workflows

AT_ONCE = 500  # ids in one query
MESSAGES_READ = 100
# Who watches a session without saying from where sees so many of its newest messages.
RECENT_MESSAGES = 50


@dataclass(frozen=True)
class SessionState:
    """What a session is like now; `working` while a task of it is under way."""

    owner: str
    status: str
    working: bool


@dataclass(frozen=True)
class SessionNews:
    """A session as it is, and messages of it, oldest first; `more` where there are further.

    `number` is the newest message's, of those that are known.
    """

    state: SessionState
    messages: list[Message]
    number: int
    more: bool


class Watch:
    """One watcher of a task or session. It wakes when there is something to be read."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.mark = ""  # of a session, in announcements
        # What its watcher has seen: the task's or session's, and the newest message's number.
        self.seen: object = None
        self.number = 0
        self._woken = threading.Event()

    def wake(self) -> None:
        """There may be news."""
        self._woken.set()

    def wait(self, timeout_s: float) -> bool:
        """Until there may be news; False when the time is over first."""
        woken = self._woken.wait(timeout_s)
        self._woken.clear()
        return woken


class Events:
    """Watches and their reads. Thread-safe, one per process; sweeps while somebody watches."""

    def __init__(
        self,
        database: Database[Document],
        store: TaskStore,
        sessions: Sessions,
        replies: Replies,
        sweep_s: float,
    ) -> None:
        self._tasks = database["tasks"]
        self._documents = database["sessions"]
        self._messages = database["messages"]
        self._sessions = sessions
        self._runs = database["runs"]
        self._store = store
        self._replies = replies
        self._sweep_s = sweep_s
        self._lock = threading.Lock()
        self._watches: dict[tuple[str, str], set[Watch]] = defaultdict(set)
        self._marks: dict[str, str] = {}  # a session's mark in announcements -> its id
        self._sweeper: threading.Thread | None = None
        self._stopped = threading.Event()
        self.closing = False

    def watch_task(self, task_id: str) -> Watch:
        """Begin to watch a task; `unwatch` ends it."""
        return self._watch(Watch("task", task_id))

    def watch_session(self, session_id: str) -> Watch:
        """Begin to watch a session; `unwatch` ends it."""
        return self._watch(Watch("session", session_id))

    def watch_run(self, run_id: str) -> Watch:
        """Begin to watch a workflow run; `unwatch` ends it."""
        return self._watch(Watch("run", run_id))

    def run(self, watch: Watch, workflows: "Workflows") -> "StoredRun":
        """The watched run as it stands.

        Raises:
            RunNotFound: no such run.
            StoreUnavailable: it cannot be read.
        """
        stored = workflows.get(watch.name)
        watch.seen = stored.fence
        return stored

    def _watch(self, watch: Watch) -> Watch:
        if watch.kind == "session":
            watch.mark = self._replies.mark(ordering_key(watch.name))
        with self._lock:
            self._watches[watch.kind, watch.name].add(watch)
            if watch.kind == "session":
                self._marks[watch.mark] = watch.name
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._run, name="events", daemon=True)
                self._sweeper.start()
        self._replies.listen(self._heard)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Forget a watch."""
        with self._lock:
            same = self._watches[watch.kind, watch.name]
            same.discard(watch)
            if not same:
                del self._watches[watch.kind, watch.name]
                if watch.kind == "session":
                    self._marks.pop(watch.mark, None)

    def task(self, watch: Watch) -> Task:
        """The watched task as it stands.

        Raises:
            TaskNotFound: no such task.
            StoreUnavailable: it cannot be read.
        """
        task = self._store.get(watch.name)
        watch.seen = (task.fence, task.events)
        return task

    def session(self, watch: Watch, after: int | None) -> SessionNews:
        """The watched session, and its messages with numbers above `after`.

        Without a number, its newest ones.

        Raises:
            NotFound: no such session.
            StoreUnavailable: it cannot be read.
        """
        seen = self._session_marks([watch.name]).get(watch.name)
        if seen is None:
            raise NotFound("No such session")
        _, owner, status, working = seen
        session = self._sessions.get(watch.name)
        limit = MESSAGES_READ
        if after is None:
            # Whatever was said is among the messages then, and numbered without gaps.
            after = max(int(self._sessions.project(session)["n"]) - RECENT_MESSAGES, 0)
        found = self._sessions.messages(session, after=after, limit=limit)
        watch.seen = seen
        watch.number = found[-1].n if found else after
        state = SessionState(owner, status, working)
        return SessionNews(state, found, watch.number, len(found) == limit)

    def close_watches(self) -> None:
        """Wake every watcher and tell it by `closing`: the process is about to stop."""
        self.closing = True
        with self._lock:
            for watches in self._watches.values():
                for watch in watches:
                    watch.wake()

    def stop(self) -> None:
        """End the sweep."""
        self._stopped.set()

    # -- what wakes watchers ---------------------------------------------------------

    def _heard(self, task_id: str, mark: str) -> None:
        with self._lock:
            names = [("task", task_id), ("session", self._marks.get(mark, ""))]
            for name in names:
                for watch in self._watches.get(name, ()):
                    watch.wake()

    def _run(self) -> None:
        while not self._stopped.wait(self._sweep_s):
            try:
                self._sweep()
            except Exception as error:
                # Whatever it was: without this thread nobody here sees anything new.
                log.warning("events.sweep_failed", error=type(error).__name__)

    def _sweep(self) -> None:
        with self._lock:
            watched = [watch for watches in self._watches.values() for watch in watches]
        for start in range(0, len(watched), AT_ONCE):
            chunk = watched[start : start + AT_ONCE]
            tasks = self._task_marks([w.name for w in chunk if w.kind == "task"])
            sessions = self._session_marks([w.name for w in chunk if w.kind == "session"])
            runs = self._run_marks([w.name for w in chunk if w.kind == "run"])
            following = {f"{w.name}:{w.number + 1}": w for w in chunk if w.kind == "session"}
            said = self._said(list(following))
            for watch in chunk:
                stored = {"task": tasks, "session": sessions, "run": runs}[watch.kind]
                new_message = f"{watch.name}:{watch.number + 1}" in said
                if new_message or stored.get(watch.name) != watch.seen:
                    watch.wake()

    def _task_marks(self, task_ids: list[str]) -> dict[str, Any]:
        if not task_ids:
            return {}
        with store_errors():
            found = self._tasks.find({"_id": {"$in": task_ids}}, {"fence": 1, "events": 1})
            return {d["_id"]: (d["fence"], d.get("events", 0)) for d in found}

    def _run_marks(self, run_ids: list[str]) -> dict[str, Any]:
        if not run_ids:
            return {}
        with store_errors():
            found = self._runs.find({"_id": {"$in": run_ids}}, {"fence": 1})
            return {document["_id"]: document["fence"] for document in found}

    def _session_marks(self, session_ids: list[str]) -> dict[str, tuple[int, str, str, bool]]:
        """Session id -> version, owner, status, whether a task of it is under way."""
        if not session_ids:
            return {}
        keys = [ordering_key(session_id) for session_id in session_ids]
        fields = {"version": 1, "owner": 1, "status": 1}
        with store_errors():
            sessions = list(self._documents.find({"_id": {"$in": session_ids}}, fields))
            heads = self._tasks.find({"key": {"$in": keys}, "head": True}, {"key": 1})
            at_work = {head["key"] for head in heads}
        return {
            d["_id"]: (
                d["version"],
                d["owner"],
                d.get("status", "open"),
                ordering_key(d["_id"]) in at_work,
            )
            for d in sessions
        }

    def _said(self, message_ids: list[str]) -> set[str]:
        if not message_ids:
            return set()
        with store_errors():
            found = self._messages.find({"_id": {"$in": message_ids}}, {"_id": 1})
            return {document["_id"] for document in found}
