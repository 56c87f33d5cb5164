"""The operators' command line. It talks to MongoDB and Redis itself, without the front door.

What goes wrong is one line on stderr and exit code 1, 2 for a command line that makes no sense.
A module for each kind of thing; what they share is in `terminal`.
"""

import sys
from pathlib import Path

import typer
from pymongo.errors import ConnectionFailure

from orchestrator.cli import (
    customers,
    dead_letters,
    desk,
    followups,
    outbox,
    reports,
    sessions,
    syncs,
    tasks,
    workflows,
)
from orchestrator.cli.terminal import Refused, one_line
from orchestrator.errors import OrchestratorError

app = typer.Typer(
    help="The front desk, seen from behind: agents, workers and tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(desk.app)
app.add_typer(tasks.app)
app.add_typer(reports.app)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(outbox.app, name="outbox")
app.add_typer(sessions.app, name="sessions")
app.add_typer(customers.app, name="customer")
app.add_typer(followups.app, name="followups")
app.add_typer(workflows.app, name="workflows")
app.add_typer(workflows.runs, name="runs")
app.add_typer(syncs.app, name="sync")
app.add_typer(syncs.catalogue, name="catalogue")


def main() -> None:
    """Entry point of the console script."""
    # As Celery does: agents that are not installed are found where one stands.
    sys.path.insert(0, str(Path.cwd()))
    try:
        app()
    except (OrchestratorError, ConnectionFailure, Refused, ImportError) as error:
        print(f"orchestrator: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
