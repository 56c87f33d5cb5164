"""Conversations: who waits for a person, what was said, and answering in the bot's place."""

from typing import Annotated, Any

import typer

from orchestrator.cli.terminal import (
    AsJson,
    Refused,
    actor,
    connected,
    facts_of,
    print_json,
    row,
    say,
    table_of,
    when,
)
from orchestrator.context import MAX_MESSAGE_CHARS, Session

app = typer.Typer(
    help="Conversations, and answering in the bot's place.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SHOWN = 200
SessionId = Annotated[
    str, typer.Argument(metavar="SESSION", help="The conversation's id.", show_default=False)
]
By = Annotated[
    str | None,
    typer.Option(help="Who answers; you, unless another is named.", show_default=False),
]


@app.command("waiting")
def waiting(
    limit: Annotated[int, typer.Option(min=1, max=SHOWN, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List conversations whose customer waits for a person, the longest wait first."""
    with connected() as engine:
        found = engine.people.waiting(limit)
    if as_json:
        print_json([_summary(session) for session in found])
        return
    table = table_of("session", "channel", "waiting since", "taken by", "language")
    for session in found:
        since = session.waiting_since
        language = session.context["shared"].get("language", "")
        row(
            table,
            session.id,
            session.channel,
            "" if since is None else when(since),
            session.taken_by or "",
            language,
        )
    say(table)
    say(f"{len(found)} waiting.")


@app.command("show")
def show(
    session_id: SessionId,
    last: Annotated[
        int, typer.Option(min=0, max=SHOWN, help="So many of the newest messages.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a conversation and what was said in it last."""
    with connected() as engine:
        session = engine.sessions.get(session_id)
        newest = engine.sessions.project(session)["n"]
        said = engine.sessions.messages(session, after=max(newest - last, 0), limit=max(last, 1))
    said = said[:last]
    if as_json:
        messages = [
            {"n": each.n, "role": each.role, "at": each.at, "text": each.text} for each in said
        ]
        print_json(_summary(session) | {"messages": messages})
        return
    say(facts_of(_summary(session)))
    table = table_of("at", "who", "text", title="\nMessages")
    for each in said:
        row(table, each.at, each.role, each.text)
    say(table)


@app.command("take")
def take(session_id: SessionId, by: By = None, as_json: AsJson = False) -> None:
    """Answer a conversation in the bot's place from here on.

    No reply of the bot takes effect after this, and what it has not begun to send is dropped.
    """
    with connected() as engine:
        session = engine.people.take(session_id, by or actor())
    _tell(session, f"{session.id} is yours ({session.taken_by}); the bot is silent.", as_json)


@app.command("reply")
def reply(
    session_id: SessionId,
    text: Annotated[str, typer.Argument(metavar="TEXT", show_default=False)],
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Say something to the customer of a conversation that you took."""
    if not text.strip() or len(text) > MAX_MESSAGE_CHARS:
        raise Refused(f"TEXT must have 1 to {MAX_MESSAGE_CHARS:,} characters")
    with connected() as engine:
        session = engine.people.reply(session_id, text, by=by or actor())
    _tell(session, f"Said in {session.id}.", as_json)


@app.command("give-back")
def give_back(session_id: SessionId, as_json: AsJson = False) -> None:
    """Let the bot answer a conversation again, from the next message on."""
    with connected() as engine:
        session = engine.people.give_back(session_id)
    _tell(session, f"{session.id} is the bot's again.", as_json)


def _tell(session: Session, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(_summary(session))
    else:
        say(sentence)


def _summary(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "channel": session.channel,
        "status": session.status,
        "owner": session.owner,
        "taken_by": session.taken_by,
        "waiting_since": session.waiting_since,
        "language": session.context["shared"].get("language"),
        "version": session.version,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    }
