"""What every command shares: how it reaches the desk, reads arguments and shows what it finds.

Keeps secret how things are shown: tables for people, JSON for programs (`--json`).
"""

import datetime as dt
import getpass
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pymongo.errors import ConnectionFailure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator import logs
from orchestrator.definitions import DefinitionInvalid
from orchestrator.engine import Engine
from orchestrator.errors import InvalidPayload, OrchestratorError, StoreUnavailable
from orchestrator.settings import current

_COLOURS: Final = {
    "operational": "green",
    "idle": "green",
    "busy": "cyan",
    "completed": "green",
    "running": "cyan",
    "queued": "yellow",
    "blocked": "yellow",
    "waiting": "yellow",
    "paused": "yellow",
    "pausing": "yellow",
    "active": "cyan",
    "compensating": "magenta",
    "degraded": "yellow",
    "cancelled": "magenta",
    "pending": "yellow",
    "planned": "yellow",
    "send": "green",
    "wait": "yellow",
    "skip": "magenta",
    "skipped": "magenta",
    "done": "green",
    "sending": "cyan",
    "sent": "green",
    "uncertain": "red",
    "dropped": "magenta",
    "failed": "red",
    "error": "red",
    "offline": "red",
    "down": "red",
}
ALL: Final = 1_000_000
_SPAN: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class Refused(Exception):
    """The command cannot be done; its message is the line that says why."""


OfCode = Annotated[str | None, typer.Option("--code", help="Only those with this error code.")]
Since = Annotated[
    str | None,
    typer.Option(help="Accepted since: 30m, 12h, 7d, or an ISO 8601 time.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All that the filters find.")]


def actor() -> str:
    """Who the audit says it was."""
    return f"cli:{getpass.getuser()}"


@contextmanager
def connected() -> Iterator[Engine]:
    """The desk, for as long as one command takes."""
    # Only what an operator must know; every other line is for the workers' logs.
    logs.configure(current(), "error")
    engine = Engine(current())
    try:
        yield engine
    finally:
        engine.close()


def one_line(error: Exception) -> str:
    """What stderr says of an error."""
    if isinstance(error, ConnectionFailure):
        error = StoreUnavailable()
    if isinstance(error, StoreUnavailable):
        return f"{error.detail}: does MongoDB run where MONGODB_URI says?"
    if isinstance(error, InvalidPayload):
        wrong = "; ".join(f"{each['pointer']} {each['detail']}" for each in error.facts["errors"])
        return f"{error.detail}: {wrong}"
    if isinstance(error, DefinitionInvalid):
        return str(error)  # it names the places already
    if isinstance(error, OrchestratorError):
        facts = line(error.facts)
        return error.detail + (f" ({facts})" if facts else "")
    return str(error)


def object_of(given: str, what: str = "payload") -> dict[str, Any]:
    """A JSON object, or that of the file that `@FILE` names.

    Raises:
        Refused: it is none; the line says what it was for.
    """
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
        payload = json.loads(text)
    except OSError as error:
        raise Refused(f"the {what}'s file cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"the {what} is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise Refused(f"the {what} must be a JSON object")
    return payload


def time_of(text: str, now: dt.datetime, option: str = "--since") -> dt.datetime:
    """An ISO 8601 time (UTC where it names no zone), or as long ago as `12h` says."""
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            return now - dt.timedelta(**{_UNITS[span[2]]: int(span[1])})
        time = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise Refused(
            f"{option} {text!r}: must be such as 30m, 12h, 7d, or an ISO 8601 time"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


# -- showing -----------------------------------------------------------------------------


def table_of(*columns: str, title: str | None = None) -> Table:
    """An empty table; `row` fills it."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        # Ids are there to be copied whole.
        table.add_column(
            column,
            no_wrap=column in ("task", "agent", "worker", "at", "run", "workflow", "step"),
            overflow="fold",
        )
    return table


def row(table: Table, *cells: object) -> None:
    """Add a row; nothing in it is taken for markup but what `coloured` made."""
    table.add_row(*(cell if isinstance(cell, _Coloured) else escape(_cell(cell)) for cell in cells))


def facts_of(told: dict[str, Any]) -> Table:
    """A line for each fact that there is; a state in its colour."""
    table = table_of("", "")
    table.show_header = False
    for name, value in told.items():
        if value is not None:
            shown = line(value) if isinstance(value, dict) else value
            row(table, name, coloured(shown) if name == "state" else shown)
    return table


class _Coloured(str):
    """Markup of ours; everything else is escaped."""

    __slots__ = ()


def coloured(state: str) -> _Coloured:
    """A state in its colour."""
    colour = _COLOURS.get(state)
    return _Coloured(f"[{colour}]{escape(state)}[/{colour}]" if colour else escape(state))


def _cell(value: object) -> str:
    return when(value) if isinstance(value, dt.datetime) else str(value)


def line(facts: dict[str, Any]) -> str:
    """Facts in one line."""
    return ", ".join(f"{name}={_jsonable(fact)}" for name, fact in facts.items())


def when(time: dt.datetime) -> str:
    """A time in UTC, to the millisecond."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _jsonable(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def say(what: str | Table) -> None:
    """Print markup or a table for people."""
    console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
    if isinstance(what, Table) and not console.is_terminal:
        # Into a pipe or a file, no line is cut to a screen's width.
        console = Console(width=400, highlight=False)
    console.print(what)


def print_json(value: object) -> None:
    """Print what a program reads."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))
