"""Syncs with the business's other systems, and the catalogue's imports and versions."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from orchestrator.cli.terminal import (
    AsJson,
    Refused,
    actor,
    coloured,
    connected,
    line,
    print_json,
    row,
    say,
    table_of,
    when,
)
from orchestrator.engine import Engine
from orchestrator.errors import NoCapableAgent, NotFound
from orchestrator.tasks import Request, State, Task

app = typer.Typer(
    help="Syncs with the business's other systems.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
catalogue = typer.Typer(
    help="The catalogue's imports and versions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
# Between two looks at a run.
LOOK_S = 1.0
SHOWN_CELLS = 20

SyncName = Annotated[
    str, typer.Argument(metavar="SYNC", help="Its name in the settings file.", show_default=False)
]
ImportId = Annotated[
    str, typer.Argument(metavar="IMPORT", help="The import's id.", show_default=False)
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]
Patience = Annotated[
    float, typer.Option("--wait", min=0, max=86_400, help="Wait for the end, in seconds.")
]


@app.command("list")
def index(as_json: AsJson = False) -> None:
    """List the syncs of the settings file, and how their last runs went."""
    with connected() as engine:
        found = _declared(lambda: engine.resources.all("syncs", 200))
    if as_json:
        print_json(found)
        return
    table = table_of("sync", "from", "to", "schedule", "last run", "at", "rows")
    for each in found:
        last = each["last"] or {}
        state = "running" if each["active"] else last.get("state", "")
        row(
            table,
            each["id"],
            each["source"],
            each["target"],
            each["schedule"] or "",
            coloured(state) if state else "",
            when(last["at"]) if last else "",
            last["counts"]["rows"] if last else "",
        )
    say(table)
    say(f"{len(found)} syncs.")


@app.command()
def run(
    sync: SyncName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell the difference, and change nothing.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Read from the beginning.")] = False,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Delete also where much is gone.")
    ] = False,
    wait: Patience = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Run a sync, and show how far it is until it is over.

    It goes on by itself when this command ends. Exits with 1 where it failed or is held.
    """
    payload = {"sync": sync, "dry_run": dry_run, "full": full, "confirmed": confirmed}
    with connected() as engine:
        task = _submit(engine, "run_sync", payload)
        until = time.monotonic() + wait
        told = -1
        while not task.state.final and time.monotonic() < until:
            task = engine.replies.wait(task.id, min(LOOK_S, max(until - time.monotonic(), 0.0)))
            rows = _rows(engine, task.id)
            if rows != told and rows is not None and not (as_json or task.state.final):
                told = rows
                say(f"{rows} rows …")
        if not task.state.final:
            raise Refused(f"{task.id} is still under way: orchestrator sync show {task.id}")
        found = _run_of(engine, task)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["state"] != "done":
        raise typer.Exit(1)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a run: its counts, and the cells that are wrong."""
    with connected() as engine:
        found = engine.resources.get("sync_runs", run_id)
    if as_json:
        print_json(found)
    else:
        _show(found)


@app.command()
def runs(sync: SyncName, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the runs of a sync, the newest first."""
    with connected() as engine:
        found = list(islice(_pages(engine, "sync_runs", {"sync": sync}), limit))
    if as_json:
        print_json(found)
        return
    table = table_of("run", "state", "began", "rows", "changed", "wrong", "reason")
    for each in found:
        counts = each["counts"]
        row(
            table,
            each["id"],
            coloured(each["state"]),
            when(each["started_at"]),
            counts["rows"],
            counts["inserted"] + counts["updated"] + counts["deleted"],
            counts["wrong"] + counts["refused"],
            (each["reason"] or {}).get("code", ""),
        )
    say(table)
    say(f"{len(found)} runs.")


@app.command()
def conflicts(
    sync: SyncName,
    state: Annotated[
        str | None, typer.Option(help="Only those in this state: open, decided.")
    ] = "open",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List rows that both sides changed, the newest first; open ones wait for a person."""
    filters = {"sync": sync} | ({"state": state} if state else {})
    with connected() as engine:
        found = list(islice(_pages(engine, "sync_conflicts", filters), limit))
    if as_json:
        print_json(found)
        return
    table = table_of("conflict", "key", "field", "agreed", "source", "target", "winner")
    for each in found:
        for name, sides in each["fields"].items():
            values = [_shown(sides[side]) for side in ("agreed", "source", "target")]
            row(table, each["id"], each["key"], name, *values, each["winner"] or "")
    say(table)
    say(f"{len(found)} conflicts.")


@app.command()
def resolve(
    conflict_id: Annotated[
        str, typer.Argument(metavar="CONFLICT", help="The conflict's id.", show_default=False)
    ],
    winner: Annotated[str, typer.Argument(metavar="source|target", help="Which side is right.")],
    wait: Patience = 60.0,
    as_json: AsJson = False,
) -> None:
    """Let one side of a conflict be right."""
    if winner not in ("source", "target"):
        raise Refused("the winner is source or target")
    payload = {"conflict_id": conflict_id, "winner": winner}
    told = _asked("resolve_sync_conflict", payload, wait)
    if as_json:
        print_json(told)
    else:
        say(f"{escape(conflict_id)}: the {winner} is right.")


@catalogue.command("imports")
def imports(
    state: Annotated[
        str | None,
        typer.Option(help="Only those: held, published, rejected, unchanged."),
    ] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List imports of the catalogue, the newest first; --state held wait for a person."""
    with connected() as engine:
        filters = {"state": state} if state else {}
        found = list(islice(_pages(engine, "catalogue_imports", filters), limit))
    if as_json:
        print_json(found)
        return
    table = table_of("import", "sync", "state", "at", "version", "changes", "why")
    for each in found:
        row(
            table,
            each["id"],
            each["sync"] or "",
            coloured(each["state"]),
            when(each["at"]),
            each["version"] or "",
            sum(each["changes"]["counts"].values()),
            ", ".join(f"{doubt['code']} ({doubt['count']})" for doubt in each["doubts"]),
        )
    say(table)
    say(f"{len(found)} imports.")


@catalogue.command()
def approve(import_id: ImportId, wait: Patience = 60.0, as_json: AsJson = False) -> None:
    """Let a held import go live."""
    _decide(import_id, "approve", wait, as_json)


@catalogue.command()
def reject(import_id: ImportId, wait: Patience = 60.0, as_json: AsJson = False) -> None:
    """Keep a held import out."""
    _decide(import_id, "reject", wait, as_json)


@catalogue.command()
def versions(wait: Patience = 60.0, as_json: AsJson = False) -> None:
    """List the newest versions of the catalogue."""
    told = _asked("catalogue_versions", {}, wait)
    if as_json:
        print_json(told)
        return
    table = table_of("version", "", "published", "by")
    for each in told["versions"]:
        current = "in force" if each["version"] == told["current"] else ""
        row(table, each["version"], current, each["published_at"][:19], each["source"])
    say(table)


@catalogue.command()
def restore(
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=1, help="Its number.", show_default=False)
    ],
    wait: Patience = 60.0,
    as_json: AsJson = False,
) -> None:
    """Put the catalogue of a version in force again, as a new version."""
    told = _asked("restore_catalogue", {"version": version}, wait)
    if as_json:
        print_json(told)
    else:
        say(f"Version {told['version']} has the catalogue of version {version}.")


def _decide(
    import_id: str, decision: Literal["approve", "reject"], wait: float, as_json: bool
) -> None:
    payload = {"import_id": import_id, "decision": decision}
    told = _asked("decide_catalogue_import", payload, wait)
    if as_json:
        print_json(told)
    else:
        version = f", version {told['version']}" if told["version"] else ""
        say(f"{escape(import_id)} is {coloured(told['state'])}{version}.")


def _submit(engine: Engine, task_type: str, payload: dict[str, Any]) -> Task:
    try:
        task, _ = engine.coordinator.submit(Request(task_type, payload, caller=actor()))
    except NoCapableAgent:
        raise Refused("no agent has declared syncs: start one, or run init") from None
    return task


def _asked(task_type: str, payload: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """What the data sync agent's worker says."""
    with connected() as engine:
        task = _submit(engine, task_type, payload)
        task = engine.replies.wait(task.id, wait_s)
    if not task.state.final:
        raise Refused(f"{task.id} is still under way: orchestrator show {task.id}")
    if task.state is not State.COMPLETED:
        error = task.error or {}
        raise Refused(f"{error.get('code')}: {error.get('detail')}")
    result: dict[str, Any] = task.result
    return result


def _run_of(engine: Engine, task: Task) -> dict[str, Any]:
    try:
        return engine.resources.get("sync_runs", task.id)
    except NotFound:
        error = task.error or {}
        raise Refused(f"{error.get('code')}: {error.get('detail')}") from None


def _rows(engine: Engine, run_id: str) -> int | None:
    try:
        return int(engine.resources.get("sync_runs", run_id)["counts"]["rows"])
    except NotFound:
        return None


def _show(found: dict[str, Any]) -> None:
    dry = ", dry" if found["dry_run"] else ""
    say(f"{escape(found['sync'])} {found['id']} is {coloured(found['state'])}{dry}.")
    say(line({name: count for name, count in found["counts"].items() if count}) or "nothing new")
    if found["reason"]:
        say(f"{found['reason']['code']}: {escape(found['reason']['detail'])}")
        for doubt in found["reason"].get("doubts", ()):
            say(f"  {doubt['code']}: {doubt['count']} products")
    if found["result"]:
        say(line(found["result"]))
    if found["changes"]:
        table = table_of("key", "would be", "field", "value")
        for change in found["changes"][:SHOWN_CELLS]:
            for name, value in change["fields"].items():
                row(table, change["key"], change["does"], name, _shown(value))
        say(table)
    if found["wrong"]:
        table = table_of("row", "column", "value", "why it did not go in")
        for cell in found["wrong"][:SHOWN_CELLS]:
            row(table, cell["row"], cell["column"], cell["value"], cell["reason"])
        say(table)
    left = max(len(found["wrong"]), len(found["changes"])) - SHOWN_CELLS
    if left > 0:
        say(f"… and more: orchestrator sync show {found['id']} --json")


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def _declared(read: Any) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = read()
    except NotFound:
        raise Refused("no agent has declared syncs: start one, or run init") from None
    return found


def _pages(engine: Engine, resource: str, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
    position: str | None = None
    engine.store.read_clock()
    while True:
        try:
            found, position = engine.resources.page(resource, filters, 200, position)
        except NotFound:
            raise Refused("no agent has declared syncs: start one, or run init") from None
        yield from found
        if position is None:
            return
