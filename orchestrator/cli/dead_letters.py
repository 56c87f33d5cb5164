"""Dead letters: tasks that came to nothing."""

from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

import typer
from rich.markup import escape

from orchestrator.cli.tasks import TaskId, pages_of, summary
from orchestrator.cli.terminal import (
    ALL,
    All,
    AsJson,
    OfCode,
    Refused,
    Since,
    actor,
    coloured,
    connected,
    facts_of,
    line,
    print_json,
    row,
    say,
    table_of,
    time_of,
    when,
)
from orchestrator.dead_letters import attempts
from orchestrator.engine import Engine
from orchestrator.tasks import Task, TaskFilter

app = typer.Typer(
    help="Tasks that came to nothing: look at them, run them once more, discard them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


OfType = Annotated[str | None, typer.Option("--type", help="Only tasks of this type.")]
OfAgent = Annotated[str | None, typer.Option("--agent", help="Only tasks of this agent.")]


OneOrNone = Annotated[
    str | None, typer.Argument(metavar="[TASK]", help="The task's id.", show_default=False)
]


@app.command("list")
def index(
    type: OfType = None,
    agent: OfAgent = None,
    code: OfCode = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    with connected() as engine:
        wanted = _letters(engine, type, agent, code, since)
        found = list(islice(pages_of(engine, wanted), limit))
    if as_json:
        print_json([summary(task) | {"error": task.error} for task in found])
        return
    table = table_of("task", "type", "agent", "accepted", "attempts", "error", "detail")
    for task in found:
        error = task.error or {}
        row(
            table,
            task.id,
            task.type,
            task.agent,
            when(task.created_at),
            task.attempts,
            error.get("code", ""),
            error.get("detail", ""),
        )
    say(table)
    say(f"{len(found)} dead letters.")


@app.command("show")
def show(task_id: TaskId, as_json: AsJson = False) -> None:
    """Show a dead letter with every attempt's error."""
    with connected() as engine:
        task = engine.dead_letters.get(task_id)
    made = attempts(task)
    if as_json:
        shown = summary(task) | {"error": task.error, "attempts_made": made}
        print_json(shown | {"timeline": list(task.timeline)})
        return
    say(facts_of(summary(task)))
    table = table_of("attempt", "at", "worker", "ended", "outcome", "error", title="Attempts")
    for each in made:
        row(
            table,
            each["attempt"],
            when(each["started_at"]),
            each["worker"],
            when(each["ended_at"]) if each["ended_at"] else "",
            each["outcome"] or "",
            line(each["error"] or {}),
        )
    say(table)


@app.command("replay")
def replay(
    task_id: OneOrNone = None,
    all: All = False,
    type: OfType = None,
    agent: OfAgent = None,
    code: OfCode = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Let one dead letter, or with --all those that the filters find, run once more."""
    with connected() as engine:
        wanted = _letters(engine, type, agent, code, since)
        _act(
            task_id,
            all,
            lambda one: engine.dead_letters.replay(one, by=actor()),
            lambda: engine.dead_letters.replay_all(wanted, ALL, by=actor()),
            "replayed",
            as_json,
        )


@app.command("discard")
def discard(
    task_id: OneOrNone = None,
    all: All = False,
    type: OfType = None,
    agent: OfAgent = None,
    code: OfCode = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Take one dead letter, or with --all those that the filters find, out of the list."""
    with connected() as engine:
        wanted = _letters(engine, type, agent, code, since)
        _act(
            task_id,
            all,
            lambda one: engine.dead_letters.discard(one, by=actor()),
            lambda: engine.dead_letters.discard_all(wanted, ALL, by=actor()),
            "discarded",
            as_json,
        )


def _letters(
    engine: Engine, type: str | None, agent: str | None, code: str | None, since: str | None
) -> TaskFilter:
    engine.store.read_clock()
    return TaskFilter(
        dead=True,
        type=type,
        agent=agent,
        code=code,
        since=None if since is None else time_of(since, engine.clock.now()),
    )


def _act(
    task_id: str | None,
    all: bool,
    on_one: Callable[[str], Task],
    on_all: Callable[[], dict[str, Any]],
    done: str,
    as_json: bool,
) -> None:
    if (task_id is None) == (not all):
        raise Refused("name one task, or say --all")
    if task_id is not None:
        task = on_one(task_id)
        if as_json:
            print_json(summary(task))
        else:
            say(f"{task.id} is {done}: {coloured(task.state.value)}.")
        return
    told = on_all()
    if as_json:
        print_json(told)
        return
    say(f"{told['done']} dead letters {done}.")
    for each in told["refused"]:
        say(f"{each['id']} was left as it is: {escape(each['code'])}")
