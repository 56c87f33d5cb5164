"""The outbox: what leaves the desk, and what a person must decide."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, cast, get_args

import typer

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
    print_json,
    row,
    say,
    table_of,
    time_of,
    when,
)
from orchestrator.engine import Engine
from orchestrator.outbox import Decision, Entry, EntryState, OutboxFilter

app = typer.Typer(
    help="What leaves the desk: look at it, and decide where nobody else can.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


EntryId = Annotated[
    str, typer.Argument(metavar="ENTRY", help="The entry's id.", show_default=False)
]


@app.command("list")
def index(
    state: Annotated[EntryState | None, typer.Option(help="Only entries in this state.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only those of this channel.")] = None,
    code: OfCode = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what leaves, the newest first, without what it says.

    --state uncertain and --state failed wait for a person.
    """
    with connected() as engine:
        wanted = _outgoing(engine, state, channel, code, since)
        found = list(islice(_entries(engine, wanted), limit))
    if as_json:
        print_json([_entry_summary(entry) for entry in found])
        return
    table = table_of("entry", "channel", "recipient", "state", "committed", "attempts", "reason")
    for entry in found:
        row(
            table,
            entry.id,
            entry.channel,
            entry.recipient,
            coloured(entry.state.value),
            when(entry.created_at),
            entry.attempts,
            (entry.reason or {}).get("code", ""),
        )
    say(table)
    say(f"{len(found)} entries.")


@app.command("show")
def show(
    entry_id: EntryId,
    body: Annotated[
        bool, typer.Option("--body", help="Also what it says: it may hold customers' data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one entry."""
    with connected() as engine:
        entry = engine.outbox.get(entry_id)
    told = _entry_summary(entry) | ({"body": entry.body} if body else {})
    if as_json:
        print_json(told)
        return
    say(facts_of(told))


@app.command("resolve")
def resolve(
    decision: Annotated[str, typer.Argument(metavar="send_again|drop")],
    entry_id: Annotated[
        str | None,
        typer.Argument(metavar="[ENTRY]", help="The entry's id.", show_default=False),
    ] = None,
    all: All = False,
    state: Annotated[
        EntryState | None, typer.Option(help="With --all: failed or uncertain.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only those of this channel.")] = None,
    code: OfCode = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Have a failed or uncertain entry sent again, or give it up; with --all those of a state
    that the filters find.

    An uncertain WhatsApp message that is sent again may arrive twice.
    """
    if decision not in get_args(Decision):
        raise Refused(f"{decision!r} is neither send_again nor drop")
    if (entry_id is None) == (not all):
        raise Refused("name one entry, or say --all")
    chosen = cast(Decision, decision)
    with connected() as engine:
        if entry_id is not None:
            entry = engine.outbox.resolve(entry_id, chosen, by=actor())
            if as_json:
                print_json(_entry_summary(entry))
            else:
                say(f"{entry.id} is {coloured(entry.state.value)}.")
            return
        if state is None or not state.decided_by_people:
            raise Refused("--all needs --state failed or --state uncertain")
        wanted = _outgoing(engine, state, channel, code, since)
        told = engine.outbox.resolve_all(wanted, chosen, ALL, by=actor())
    if as_json:
        print_json(told)
    else:
        say(f"{told['done']} entries decided.")


def _outgoing(
    engine: Engine,
    state: EntryState | None,
    channel: str | None,
    code: str | None,
    since: str | None,
) -> OutboxFilter:
    engine.store.read_clock()
    return OutboxFilter(
        state=state,
        channel=channel,
        code=code,
        since=None if since is None else time_of(since, engine.clock.now()),
    )


def _entries(engine: Engine, wanted: OutboxFilter) -> Iterator[Entry]:
    position: str | None = None
    while True:
        found, position = engine.outbox.page(wanted, 200, position)
        yield from found
        if position is None:
            return


def _entry_summary(entry: Entry) -> dict[str, Any]:
    hidden = ("body", "version", "token", "opened_at")
    told = {name: value for name, value in vars(entry).items() if name not in hidden}
    return told | {"state": entry.state.value}
