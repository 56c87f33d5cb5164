"""Follow-ups: who is written to by itself, when, and why not."""

import datetime as dt
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from orchestrator.cli.terminal import (
    AsJson,
    Refused,
    actor,
    coloured,
    connected,
    print_json,
    row,
    say,
    table_of,
    time_of,
    when,
)
from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.errors import NotFound

app = typer.Typer(
    help="Messages to customers who fell silent: what goes out, when, and why not.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FollowupId = Annotated[
    str, typer.Argument(metavar="FOLLOWUP", help="The follow-up's id.", show_default=False)
]


@app.command()
def run(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would go out, and why not.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="Look at about so many conversations.")
    ] = 2_000,
    as_json: AsJson = False,
) -> None:
    """Find who is to be written to, as beat has it done every minute.

    What is found is planned and goes out by the agents' workers. With --dry-run nothing is
    written: it tells what would go out now, when the rest would, and why what does not.
    """
    with connected() as engine:
        engine.store.read_clock()
        asked = {"limit": limit, "dry_run": dry_run}
        told = _agents(engine, "find_due_followups", asked)
    if as_json:
        print_json(told)
    elif dry_run:
        _show(told["followups"])
    else:
        say(f"{told['planned']} planned, of {told['looked_at']} looked at.")


def _show(found: list[dict[str, Any]]) -> None:
    table = table_of("conversation", "rule", "quote", "silent", "", "why", "until")
    for each in found:
        row(
            table,
            each["session_id"],
            each["rule"],
            each["quote_code"] or "",
            f"{each['silent_h']:.1f} h",
            coloured(each["verdict"]),
            each["code"],
            "" if each["until"] is None else when(dt.datetime.fromisoformat(each["until"])),
        )
    say(table)
    tally = {verdict: 0 for verdict in ("send", "wait", "skip")}
    for each in found:
        tally[each["verdict"]] += 1
    say(f"{tally['send']} would go out, {tally['wait']} wait, {tally['skip']} do not go out.")


@app.command("list")
def index(
    state: Annotated[
        str | None,
        typer.Option(help="Only those: planned, sent, done, skipped, cancelled."),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only those of this rule.")] = None,
    session: Annotated[str | None, typer.Option(help="Only those of this conversation.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Planned since: 30m, 12h, 7d, or an ISO 8601 time.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List follow-ups, the newest first, without what they say."""
    given = {"state": state, "rule": rule, "session_id": session}
    with connected() as engine:
        engine.store.read_clock()
        begin = None if since is None else time_of(since, engine.clock.now())
        filters = {name: value for name, value in given.items() if value is not None}
        found = list(islice(_pages(engine, filters, begin), limit))
    if as_json:
        print_json([{name: each[name] for name in each if name != "text"} for each in found])
        return
    table = table_of("follow-up", "rule", "conversation", "state", "due", "sent", "why", "effect")
    for each in found:
        effect = ", ".join(name for name, count in each["counts"].items() if count)
        row(
            table,
            each["id"],
            each["rule"],
            each["session_id"] or "",
            coloured(each["state"]),
            when(each["due_at"]),
            "" if each["sent_at"] is None else when(each["sent_at"]),
            (each["why"] or {}).get("code", ""),
            effect,
        )
    say(table)
    say(f"{len(found)} follow-ups.")


@app.command()
def cancel(followup_id: FollowupId, as_json: AsJson = False) -> None:
    """Do not send a follow-up that is planned."""
    with connected() as engine:
        engine.store.read_clock()
        asked = {"followup_id": followup_id, "by": actor()}
        told = _agents(engine, "cancel_followup", asked)
    if as_json:
        print_json(told)
    else:
        say(f"{told['followup_id']} is {coloured(told['state'])}.")
    if told["state"] != "cancelled":
        raise typer.Exit(1)


def _agents(engine: Engine, command: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What the agent that knows the command says, in this process."""
    for agent in discover(engine.settings.agents_package).values():
        if command in agent.commands:
            return agent.commands[command](engine, asked)
    raise Refused(f"no agent of {engine.settings.agents_package} can do {command}")


def _pages(
    engine: Engine, filters: dict[str, str], since: dt.datetime | None
) -> Iterator[dict[str, Any]]:
    position: str | None = None
    while True:
        try:
            found, position = engine.resources.page("followups", filters, 200, position, since)
        except NotFound:
            raise Refused("no agent has declared follow-ups: start one, or run init") from None
        yield from found
        if position is None:
            return
