"""Tasks: list them, look at one, submit and cancel."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer
from rich.markup import escape

from orchestrator.cli.terminal import (
    AsJson,
    coloured,
    connected,
    facts_of,
    line,
    object_of,
    print_json,
    row,
    say,
    table_of,
    time_of,
    when,
)
from orchestrator.engine import Engine
from orchestrator.tasks import Priority, Request, State, Task, TaskFilter

app = typer.Typer()


TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)]


@app.command()
def tasks(
    state: Annotated[State | None, typer.Option(help="Only tasks in this state.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only tasks of this agent.")] = None,
    type: Annotated[str | None, typer.Option(help="Only tasks of this type.")] = None,
    session: Annotated[str | None, typer.Option(help="Only tasks of this session.")] = None,
    since: Annotated[
        str, typer.Option(help="Accepted since: 30m, 12h, 7d, or an ISO 8601 time.")
    ] = "1d",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List tasks, the newest first."""
    with connected() as engine:
        engine.store.read_clock()
        wanted = TaskFilter(
            state=state,
            agent=agent,
            type=type,
            session_id=session,
            since=time_of(since, engine.clock.now()),
        )
        found = list(islice(pages_of(engine, wanted), limit))
    if as_json:
        print_json([summary(task) for task in found])
        return
    table = table_of("task", "type", "agent", "state", "priority", "accepted", "ran", "error")
    for task in found:
        row(
            table,
            task.id,
            task.type,
            task.agent,
            coloured(task.state.value),
            task.priority.value,
            when(task.created_at),
            _ran(task),
            (task.error or {}).get("code", ""),
        )
    say(table)
    say(f"{len(found)} tasks.")


@app.command()
def show(
    task_id: TaskId,
    payload: Annotated[
        bool, typer.Option("--payload", help="Also what was asked: it may hold customers' data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one task: decision, timeline, result."""
    with connected() as engine:
        task = engine.store.get(task_id)
    told = summary(task) | {
        "decision": task.decision,
        "timeline": list(task.timeline),
        "result": task.result,
        "error": task.error,
        "children": task.child_ids(),
        "parent": task.parent["id"] if task.parent else None,
    }
    if payload:
        told["payload"] = task.payload
    if as_json:
        print_json(told)
        return
    say(facts_of(summary(task) | {"error_code": None}))  # the error is told whole, below
    timeline = table_of("at", "event", "facts", title="Timeline")
    for event in task.timeline:
        known = {name: fact for name, fact in event.items() if name not in ("at", "event")}
        row(timeline, when(event["at"]), event["event"], line(known))
    say(timeline)
    for title in ("decision", "payload", "children", "result", "error"):
        if told.get(title):
            say(f"[bold]{title.capitalize()}[/bold]")
            print_json(told[title])


@app.command()
def submit(
    task_type: Annotated[str, typer.Argument(metavar="TYPE", help="What is asked.")],
    payload: Annotated[str, typer.Option(help="JSON, or @FILE that holds it.")] = "{}",
    capability: Annotated[
        list[str] | None, typer.Option(help="Needed besides those of the type; repeatable.")
    ] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(help="Preferred, while an agent that has it is live.")
    ] = None,
    priority: Annotated[Priority, typer.Option(help="How urgent.")] = Priority.NORMAL,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same one again is the same task.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="Wait for the end, in seconds.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Accept a task.

    With --wait it exits with 1 if the task ends without a result.
    """
    request = Request(
        type=task_type,
        payload=object_of(payload),
        capabilities=tuple(capability or ()),
        prefers=tuple(prefer or ()),
        priority=priority,
        caller="operator",
        idempotency_key=key,
    )
    with connected() as engine:
        task, created = engine.coordinator.submit(request, admission=engine.admission)
        if wait:
            task = engine.replies.wait(task.id, wait)
    if as_json:
        print_json(summary(task) | {"result": task.result, "error": task.error, "new": created})
    else:
        known = "" if created else ", accepted before under this key"
        say(f"{task.id} {coloured(task.state.value)} ({escape(task.agent)}{known})")
        if task.state is State.COMPLETED:
            print_json(task.result)
        elif task.error:
            print_json(task.error)
    if wait and task.state.final and task.state is not State.COMPLETED:
        raise typer.Exit(1)


@app.command()
def cancel(task_id: TaskId, as_json: AsJson = False) -> None:
    """Cancel a task.

    What it handed over is cancelled with it; one that runs ends when its handler returns.
    """
    with connected() as engine:
        task = engine.coordinator.cancel(task_id)
    if as_json:
        print_json(summary(task))
    elif task.state is State.CANCELLED:
        say(f"{task.id} is cancelled.")
    else:
        say(f"{task.id} is {task.state.value}; it ends when its handler returns.")


def pages_of(engine: Engine, wanted: TaskFilter) -> Iterator[Task]:
    position: str | None = None
    while True:
        found, position = engine.store.page(wanted, 200, position)
        yield from found
        if position is None:
            return


def summary(task: Task) -> dict[str, Any]:
    """A task without what may hold a customer's data."""
    return {
        "task_id": task.id,
        "type": task.type,
        "agent": task.agent,
        "state": task.state.value,
        "priority": task.priority.value,
        "caller": task.caller,
        "session_id": task.session_id,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "deadline": task.deadline,
        "attempts": task.attempts,
        "failures": task.failures,
        "crashes": task.crashes,
        "error_code": (task.error or {}).get("code"),
    }


def _ran(task: Task) -> str:
    if task.started_at is None or task.finished_at is None:
        return ""
    return f"{(task.finished_at - task.started_at).total_seconds() * 1000:.0f} ms"
