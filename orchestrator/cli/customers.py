"""All that is kept of a customer."""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.terminal import (
    AsJson,
    Refused,
    actor,
    connected,
    print_json,
    say,
)
from orchestrator.phones import e164

app = typer.Typer(
    help="All that is kept of a customer: given out, or erased.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


PhoneNumber = Annotated[
    str, typer.Argument(metavar="PHONE", help="In any usual way of writing.", show_default=False)
]


@app.command("export")
def export(
    phone: PhoneNumber,
    out: Annotated[
        Path | None, typer.Option(help="Into this file, for your eyes only.", show_default=False)
    ] = None,
) -> None:
    """Print all that is kept of a customer, as JSON."""
    with connected() as engine:
        engine.store.read_clock()
        told = engine.customers.export(_e164(phone), by=actor())
    if out is None:
        print_json(told)
        return
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(told, file, ensure_ascii=False, indent=2)
    except OSError as error:
        raise Refused(f"{out} cannot be written: {error.strerror}") from None


@app.command("erase")
def erase(
    phone: PhoneNumber,
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="Wait for the end, in seconds.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Erase all that is kept of a customer up to now.

    Quotes and their totals stay, without name, phone and conversation. It waits for tasks that
    run; with --wait over, the desk goes on by itself.
    """
    with connected() as engine:
        engine.store.read_clock()
        until = time.monotonic() + wait
        erasure = engine.customers.erase(_e164(phone), by=actor())
        while erasure.state != "done" and time.monotonic() < until:
            erasure = engine.customers.advance(erasure.id)
            time.sleep(0.1)
    if as_json:
        print_json(vars(erasure))
        return
    say(f"Erasure {erasure.id} is {'done' if erasure.state == 'done' else 'under way'}.")
    for name, n in erasure.counts.items():
        say(f"  {n} {name}")


def _e164(phone: str) -> str:
    try:
        return e164(phone)
    except ValueError as error:
        raise Refused(f"PHONE {error}") from None
