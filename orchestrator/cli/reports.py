"""Reports of how the business goes, made by the analytics agent."""

import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from orchestrator.cli.terminal import (
    AsJson,
    Refused,
    connected,
    print_json,
    row,
    say,
    table_of,
    time_of,
)
from orchestrator.engine import Engine
from orchestrator.errors import NotFound
from orchestrator.tasks import Request, State, Task

app = typer.Typer()

FORMATS: Final = ("html", "pdf", "csv")


@app.command()
def report(
    since: Annotated[str, typer.Option(help="From then on: 12h, 7d, or an ISO 8601 time.")] = "7d",
    until: Annotated[
        str | None,
        typer.Option(help="To before then, written alike; without it to now.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Into this file: .html, .pdf or .csv says as what.", show_default=False),
    ] = None,
    language: Annotated[Literal["es", "en"], typer.Option(help="Of its texts and numbers.")] = "es",
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="Wait for the agent, in seconds.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Count what happened, and tell what it says. Needs a worker of the analytics agent."""
    form = None if out is None else out.suffix.lstrip(".").lower()
    if form is not None and form not in FORMATS:
        raise Refused(f"{out} must end with .html, .pdf or .csv")
    with connected() as engine:
        engine.store.read_clock()
        now = engine.clock.now()
        ends = until and time_of(until, now, "--until").isoformat()
        begins = time_of(since, now, "--since").isoformat()
        end_s = time.monotonic() + wait
        payload = {"since": begins} | ({"until": ends} if ends else {})
        made = _done(engine, Request("make_report", payload, caller="operator"), end_s)
        told = engine.resources.get("report", made.id)
        if form is not None and out is not None:
            wanted = {"report_id": made.id, "format": form, "language": language}
            file = _done(engine, Request("render_report", wanted, caller="operator"), end_s)
            _write(engine, file.result["file_id"], out)
    if as_json:
        print_json(told)
        return
    _show(told, language)
    if out is not None:
        say(f"Written to {out}.")


def _done(engine: Engine, request: Request, end_s: float) -> Task:
    task, _ = engine.coordinator.submit(request, admission=engine.admission)
    task = engine.replies.wait(task.id, max(0.0, end_s - time.monotonic()))
    if not task.state.final:
        raise Refused(
            f"task {task.id} is still {task.state.value}: does a worker of {task.agent} run?"
        )
    if task.state is not State.COMPLETED:
        raise Refused(f"task {task.id} {task.state.value}: {(task.error or {}).get('detail', '')}")
    return task


def _write(engine: Engine, file_id: str, out: Path) -> None:
    file = engine.files.get(file_id)
    if file is None:
        raise NotFound("The file is gone")
    try:
        out.write_bytes(file.content)
    except OSError as error:
        raise Refused(f"{out} cannot be written: {error.strerror}") from None


def _show(told: dict[str, Any], language: str) -> None:
    figures = told["figures"]
    say(f"{figures['since']} to {figures['until']} ({figures['zone']})")
    table = table_of("measure", "unit", "value", "before")
    for name, measured in figures["measures"].items():
        row(table, name, measured["unit"], _cell(measured["value"]), _cell(measured["before"]))
    for currency, money in figures["money"].items():
        before = figures["money_before"].get(currency, {})
        for name in ("quoted", "won"):
            row(table, name, currency, money[name], before.get(name, "0"))
    say(table)
    for insight in told["insights"]:
        say(f"- {insight['text'][language]}")


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
