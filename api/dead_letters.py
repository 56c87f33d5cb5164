"""Dead letters: what came to nothing, for the operator to see, run once more, or discard."""

from typing import Any

from apiflask import APIBlueprint

from api import pages, schemas
from api.auth import Access, Caller
from api.promptness import prompt
from api.tasks import summary, task_body
from orchestrator.dead_letters import attempts
from orchestrator.engine import Engine
from orchestrator.tasks import Task

OPERATING = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    503: "The task store is unavailable.",
}
ONE = OPERATING | {404: "No such task.", 409: "It is no dead letter, or not any more."}
MANY = OPERATING | {
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "A filter is not valid.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/dead-letters`."""
    letters = APIBlueprint("dead_letters", __name__, tag="Dead letters")

    @letters.get("/api/dead-letters")
    @access.operator
    @letters.output(schemas.DeadLetters, description="A page; `Link` leads to the next.")
    @letters.input(schemas.DeadLetterQuery, location="query")
    @letters.doc(summary="List dead letters", responses=OPERATING)
    def index(caller: Caller, query_data: schemas.DeadLetterQuery) -> Any:
        """Tasks that failed and that nobody has replayed or discarded, the newest first.

        A task that was handed over is not among them: its failure is its parent's.
        """
        with prompt(engine), pages.positions():
            found, following = engine.dead_letters.page(
                query_data.wanted(), query_data.page_size, query_data.position()
            )
        return query_data.answer("dead_letters", [_letter(task) for task in found], following)

    @letters.get("/api/dead-letters/<task_id>")
    @access.operator
    @letters.output(schemas.DeadLetterInFull)
    @letters.doc(summary="Read a dead letter", responses=ONE)
    def read(task_id: str, caller: Caller) -> Any:
        """A dead letter with every attempt's error and all that happened to it."""
        with prompt(engine):
            task = engine.dead_letters.get(task_id)
        return _letter(task) | {
            "attempts_made": attempts(task),
            "children": task.child_ids(),
            "events": list(task.timeline),
        }

    @letters.post("/api/dead-letters/<task_id>/replay")
    @access.operator
    @letters.output(schemas.Task, status_code=202, description="It will run once more.")
    @letters.doc(
        summary="Replay a dead letter",
        responses=ONE | {409: "It is no dead letter, or has taken effect already."},
    )
    def replay(task_id: str, caller: Caller) -> Any:
        """Let it run once more: the same task, with its history.

        What it has committed is not done twice. A message of a conversation takes its place
        after those that came later; one that was answered is refused.
        """
        with prompt(engine):
            task = engine.dead_letters.replay(task_id, by=caller.name)
        return task_body(task), 202, {"Location": f"/api/tasks/{task.id}"}

    @letters.post("/api/dead-letters/<task_id>/discard")
    @access.operator
    @letters.output(schemas.Task)
    @letters.doc(summary="Discard a dead letter", responses=ONE)
    def discard(task_id: str, caller: Caller) -> Any:
        """Take it out of the list for good; it stays a failed task for as long as it is kept."""
        with prompt(engine):
            return task_body(engine.dead_letters.discard(task_id, by=caller.name))

    @letters.post("/api/dead-letters/replay")
    @access.operator
    @letters.output(schemas.DeadLettersDone)
    @letters.input(schemas.DeadLetterFilter)
    @letters.doc(summary="Replay many dead letters", responses=MANY)
    def replay_all(caller: Caller, json_data: schemas.DeadLetterFilter) -> Any:
        """Replay those that the filter finds, the newest `limit` of them."""
        return engine.dead_letters.replay_all(json_data.wanted(), json_data.limit, by=caller.name)

    @letters.post("/api/dead-letters/discard")
    @access.operator
    @letters.output(schemas.DeadLettersDone)
    @letters.input(schemas.DeadLetterFilter)
    @letters.doc(summary="Discard many dead letters", responses=MANY)
    def discard_all(caller: Caller, json_data: schemas.DeadLetterFilter) -> Any:
        """Discard those that the filter finds, the newest `limit` of them."""
        return engine.dead_letters.discard_all(json_data.wanted(), json_data.limit, by=caller.name)

    return letters


def _letter(task: Task) -> dict[str, Any]:
    return summary(task) | {"error": task.error}
