"""Workflows and their runs: what there is, what it is doing, and steering it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from orchestrator import definitions, diagrams
from orchestrator.advance import RunState
from orchestrator.cli.terminal import (
    AsJson,
    Refused,
    Since,
    actor,
    coloured,
    connected,
    facts_of,
    object_of,
    print_json,
    row,
    say,
    table_of,
    time_of,
    when,
)
from orchestrator.definitions import MAX_BYTES, Definition, DefinitionInvalid
from orchestrator.engine import Engine
from orchestrator.workflows import StoredRun

app = typer.Typer(
    help="Definitions: look at them, change them, start runs of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
runs = typer.Typer(
    help="Runs of workflows: look at them, and steer them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MAX_FAULTS: Final = 50
WorkflowId = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="The workflow's id.", show_default=False)
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)]
Version = Annotated[int | None, typer.Option(min=1, help="By default the newest.")]


@app.command("list")
def index(as_json: AsJson = False) -> None:
    """List the workflows, each in its newest version."""
    with connected() as engine:
        known = [_summary(each) for each in engine.definitions.all()]
    if as_json:
        print_json(known)
        return
    table = table_of("workflow", "version", "steps", "needs", "starts by", "name")
    for each in known:
        starts = ", ".join(start.get("event") or start["cron"] for start in each["starts"])
        needs = ", ".join(each["needs"])
        row(table, each["id"], each["version"], each["steps"], needs, starts, each["name"])
    say(table)
    say(f"{len(known)} workflows.")


@app.command("show")
def show(workflow_id: WorkflowId, version: Version = None, as_json: AsJson = False) -> None:
    """Show a definition as it is kept, and what versions of it there are."""
    with connected() as engine:
        definition = engine.definitions.get(workflow_id, version)
        versions = engine.definitions.versions(workflow_id)
    if as_json:
        told = _summary(definition)
        print_json(told | {"definition": definition.to_document(), "versions": versions})
        return
    print(definitions.written(definition), end="")
    table = table_of("version", "by", "at", title="Versions")
    for each in versions:
        row(table, each["version"], each["by"], when(each["created_at"]))
    say(table)


@app.command("put")
def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a definition and keep it as the newest version; runs keep the one they have.

    Whatever is wrong is said with the file and the line.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise Refused(f"{file} is larger than {MAX_BYTES // 1024} kB")
        text = file.read_bytes()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from None
    with _each_fault_a_line(), connected() as engine:
        definition = definitions.parse(text, str(file))
        engine.definitions.check_declared(definition, str(file))
        if not dry_run:
            with engine.audit.act(actor(), "workflow.put", definition.id) as outcome:
                definition = engine.definitions.put(definition, actor())
                outcome["version"] = definition.version
    if as_json:
        print_json(_summary(definition))
    elif dry_run:
        say(f"{escape(definition.id)} is valid.")
    else:
        say(f"{escape(definition.id)} is at version {definition.version}.")


@app.command("start")
def start(
    workflow_id: WorkflowId,
    given: Annotated[str, typer.Option("--input", help="JSON, or @FILE that holds it.")] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same one again is the same run.")
    ] = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Start a run."""
    wanted = object_of(given, "input")
    with connected() as engine:
        stored, created = engine.workflows.start(
            workflow_id, wanted, caller="operator", key=key, version=version
        )
        stored = engine.workflows.get(stored.id)
    if as_json:
        print_json(_run(stored) | {"new": created})
        return
    known = "" if created else ", started before under this key"
    version_of = f"{stored.workflow} {stored.version}{known}"
    say(f"{escape(stored.id)} {coloured(stored.run.state.value)} ({escape(version_of)})")


@app.command("diagram")
def diagram(workflow_id: WorkflowId, version: Version = None) -> None:
    """Print a definition as Mermaid text."""
    with connected() as engine:
        print(diagrams.of_definition(engine.definitions.get(workflow_id, version)), end="")


@runs.command("list")
def list_runs(
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    state: Annotated[RunState | None, typer.Option(help="Only runs in this state.")] = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    with connected() as engine:
        engine.store.read_clock()
        after = None if since is None else time_of(since, engine.clock.now())

        def pages() -> Iterator[StoredRun]:
            position: str | None = None
            while True:
                found, position = engine.workflows.page(
                    workflow=workflow, state=state, since=after, limit=200, position=position
                )
                yield from found
                if position is None:
                    return

        found = list(islice(pages(), limit))
    if as_json:
        print_json([_run(each) for each in found])
        return
    table = table_of("run", "workflow", "version", "state", "steps", "trigger", "began", "error")
    for each in found:
        row(
            table,
            each.id,
            each.workflow,
            each.version,
            coloured(each.run.state.value),
            len(each.run.visits),
            each.trigger,
            when(each.created_at),
            (each.run.error or {}).get("code", ""),
        )
    say(table)
    say(f"{len(found)} runs.")


@runs.command("show")
def show_run(
    run_id: RunId,
    results: Annotated[
        bool,
        typer.Option(
            "--results", help="Also input, output and results: they may hold customers' data."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run and every step that it came to; where it waits for the outside, what for."""
    with connected() as engine:
        stored = engine.workflows.get(run_id)
        steps = engine.workflows.steps(stored)
        waiting = [name for name, _ in engine.workflows.callbacks(stored)]
    told: dict[str, Any] = _run(stored)
    if results:
        told |= {"input": stored.run.input, "output": stored.run.output}
    else:
        steps = [
            {name: fact for name, fact in step.items() if name not in ("result", "error")}
            for step in steps
        ]
    told |= {"waits_for": waiting, "steps": steps}
    if as_json:
        print_json(told)
        return
    facts = facts_of(_run(stored))
    if waiting:
        row(facts, "waits_for", ", ".join(waiting))
    say(facts)
    table = table_of(
        "step", "kind", "state", "tries", "way", "at", "took", "task", "code", title="Steps"
    )
    for step in steps:
        row(
            table,
            step["key"],
            step["kind"],
            coloured(step["state"]),
            step["tries"],
            step["way"] or "",
            when(step["started_at"]) if step["started_at"] else "",
            _took(step),
            step["task_id"] or "",
            step["code"] or "",
        )
    say(table)
    for title in ("input", "output"):
        if told.get(title):
            say(f"[bold]{title.capitalize()}[/bold]")
            print_json(told[title])
    if results:
        for step in steps:
            if step["result"] is not None or step["error"] is not None:
                say(f"[bold]{escape(step['key'])}[/bold]")
                print_json(step["error"] or step["result"])


@runs.command("diagram")
def run_diagram(run_id: RunId) -> None:
    """Print a run's definition as Mermaid text, each step in the colour of its state."""
    with connected() as engine:
        stored = engine.workflows.get(run_id)
        definition = engine.definitions.get(stored.workflow, stored.version)
    print(diagrams.of_run(definition, stored.run.visits), end="")


@runs.command("cancel")
def cancel(run_id: RunId, as_json: AsJson = False) -> None:
    """Stop what is open, then undo what completed."""
    _steer(lambda engine: engine.workflows.cancel(run_id), as_json)


@runs.command("pause")
def pause(run_id: RunId, as_json: AsJson = False) -> None:
    """Take no further step; what has begun goes on, and counts when the run is resumed."""
    _steer(lambda engine: engine.workflows.pause(run_id), as_json)


@runs.command("resume")
def resume(run_id: RunId, as_json: AsJson = False) -> None:
    """Let a paused run go on."""
    _steer(lambda engine: engine.workflows.resume(run_id), as_json)


@runs.command("retry")
def retry(run_id: RunId, as_json: AsJson = False) -> None:
    """Let a failed or cancelled run go on from where it stopped."""
    _steer(lambda engine: engine.workflows.retry(run_id), as_json)


@runs.command("answer")
def answer(
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="CALLBACK", show_default=False)],
    payload: Annotated[str, typer.Option(help="JSON, or @FILE that holds it.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Answer a callback that a run waits for, in place of the outside; the first answer counts."""
    said = object_of(payload)

    def answered(engine: Engine) -> StoredRun:
        engine.workflows.answered_by_operator(run_id, name, said)
        return engine.workflows.get(run_id)

    _steer(answered, as_json)


@contextmanager
def _each_fault_a_line() -> Iterator[None]:
    try:
        yield
    except DefinitionInvalid as invalid:
        for problem in invalid.lines[:MAX_FAULTS]:
            print(problem, file=sys.stderr)
        if len(invalid.lines) > MAX_FAULTS:
            print(f"and {len(invalid.lines) - MAX_FAULTS} more", file=sys.stderr)
        raise typer.Exit(1) from None


def _steer(change: Callable[[Engine], StoredRun], as_json: bool) -> None:
    with connected() as engine:
        stored = change(engine)
    if as_json:
        print_json(_run(stored))
    else:
        say(f"{escape(stored.id)} is {coloured(stored.run.state.value)}.")


def _summary(definition: Definition) -> dict[str, Any]:
    workflow = definition.workflow
    return {
        "id": definition.id,
        "version": definition.version,
        "name": workflow.name,
        "steps": len(definition.places),
        "needs": workflow.needs,
        "starts": [json.loads(each.model_dump_json(exclude_none=True)) for each in workflow.on],
    }


def _run(stored: StoredRun) -> dict[str, Any]:
    """A run without what may hold a customer's data."""
    run = stored.run
    return {
        "run_id": run.id,
        "workflow": stored.workflow,
        "version": stored.version,
        "state": run.state.value,
        "trigger": stored.trigger,
        "caller": stored.caller,
        "parent": stored.parent,
        "cancel_requested": run.cancel,
        "error": run.error,
        "created_at": stored.created_at,
        "finished_at": stored.finished_at,
        "due_at": run.due_at,
    }


def _took(step: dict[str, Any]) -> str:
    if step["started_at"] is None or step["finished_at"] is None:
        return ""
    took_s: float = (step["finished_at"] - step["started_at"]).total_seconds()
    return f"{took_s * 1000:.0f} ms" if took_s < 10 else f"{took_s:.0f} s"
