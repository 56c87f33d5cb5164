"""The operators' command line. It talks to MongoDB and Redis itself, without the front door.

Keeps secret how things are shown: tables for people, JSON for programs (`--json`). What
goes wrong is one line on stderr and exit code 1, 2 for a command line that makes no sense.
"""

import datetime as dt
import getpass
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, cast, get_args

import typer
from pymongo.errors import ConnectionFailure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator import logs
from orchestrator.dead_letters import attempts
from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.errors import InvalidPayload, OrchestratorError, StoreUnavailable
from orchestrator.outbox import Decision, Entry, EntryState, OutboxFilter
from orchestrator.phones import e164
from orchestrator.settings import current
from orchestrator.tasks import Priority, Request, State, Task, TaskFilter

app = typer.Typer(
    help="The front desk, seen from behind: agents, workers and tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_COLOURS: Final = {
    "operational": "green",
    "idle": "green",
    "busy": "cyan",
    "completed": "green",
    "running": "cyan",
    "queued": "yellow",
    "blocked": "yellow",
    "waiting": "yellow",
    "degraded": "yellow",
    "cancelled": "magenta",
    "pending": "yellow",
    "sending": "cyan",
    "sent": "green",
    "uncertain": "red",
    "dropped": "magenta",
    "failed": "red",
    "error": "red",
    "offline": "red",
    "down": "red",
}
_ALL: Final = 1_000_000
_SPAN: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

dead_letters = typer.Typer(
    help="Tasks that came to nothing: look at them, run them once more, discard them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(dead_letters, name="dead-letters")
outbox = typer.Typer(
    help="What leaves the desk: look at it, and decide where nobody else can.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(outbox, name="outbox")

customer = typer.Typer(
    help="All that is kept of a customer: given out, or erased.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(customer, name="customer")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)]


class _Refused(Exception):
    """The command cannot be done; its message is the line that says why."""


@app.command()
def init(as_json: AsJson = False) -> None:
    """Make indexes and declare the agents; repeatable."""
    with _engine() as engine:
        agents = discover(engine.settings.agents_package)
        engine.init([*agents.values()])
        declared: list[dict[str, Any]] = [
            {
                "agent_id": agent.id,
                "queue": engine.settings.queue(agent.role),
                "slots": agent.slots,
                "task_types": sorted(agent.task_types),
            }
            for agent in agents.values()
        ]
    if as_json:
        _print_json({"database": engine.settings.mongodb_database, "agents": declared})
        return
    table = _table("agent", "queue", "slots", "task types")
    for each in declared:
        _row(table, each["agent_id"], each["queue"], each["slots"], ", ".join(each["task_types"]))
    _print(table)
    _print(f"{len(declared)} agents declared in {engine.settings.mongodb_database}.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show how the desk is, and why."""
    with _engine() as engine:
        told = engine.service.status()
        told["dependencies"] = engine.service.ready()
    if as_json:
        _print_json(told)
        return
    health, rescue = told["health"], told["orchestrator"]
    _print(f"The desk is [bold]{_coloured(told['status'])}[/bold].")
    for name, answers in told["dependencies"].items():
        if not answers:
            _print(f"[red]{name} does not answer.[/red]")
    table = _table("", "")
    table.show_header = False
    agents, tasks = health["agents"], health["tasks"]
    _row(table, "agents", f"{agents['online']} of {agents['total']} online")
    _row(table, "in queues", health["queue_size"])
    _row(table, "tasks", ", ".join(f"{n} {name}" for name, n in tasks.items()))
    age_s = rescue["rescue_age_s"]
    seen = "never seen" if age_s is None else f"seen {age_s} s ago"
    _row(table, "rescuer", f"{rescue['rescuer']}, {seen}")
    _print(table)
    _print(_agents_table(told["agents"]))


@app.command()
def agents(as_json: AsJson = False) -> None:
    """List the agents and their workers."""
    with _engine() as engine:
        told = engine.service.agents()
    if as_json:
        _print_json(told)
        return
    if not told:
        _print("No agent is declared: run `orchestrator init`, or start a worker.")
        return
    _print(_agents_table(told))
    workers = _table(
        "worker", "agent", "status", "busy", "completed", "failed", "mean run", "problem"
    )
    for agent in told:
        for worker in agent["workers"]:
            _row(
                workers,
                worker["worker"],
                agent["agent_id"],
                _coloured(worker["status"]),
                f"{worker['current_tasks']}/{worker['slots']}",
                worker["completed"],
                worker["failed"],
                f"{worker['mean_run_s'] * 1000:.0f} ms",
                worker["problem"] or "",
            )
    if workers.row_count:
        _print(workers)


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
    with _engine() as engine:
        engine.store.read_clock()
        wanted = TaskFilter(
            state=state,
            agent=agent,
            type=type,
            session_id=session,
            since=_time(since, engine.clock.now()),
        )
        found = list(islice(_pages(engine, wanted), limit))
    if as_json:
        _print_json([_summary(task) for task in found])
        return
    table = _table("task", "type", "agent", "state", "priority", "accepted", "ran", "error")
    for task in found:
        _row(
            table,
            task.id,
            task.type,
            task.agent,
            _coloured(task.state.value),
            task.priority.value,
            _when(task.created_at),
            _ran(task),
            (task.error or {}).get("code", ""),
        )
    _print(table)
    _print(f"{len(found)} tasks.")


@app.command()
def show(
    task_id: TaskId,
    payload: Annotated[
        bool, typer.Option("--payload", help="Also what was asked: it may hold customers' data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one task: decision, timeline, result."""
    with _engine() as engine:
        task = engine.store.get(task_id)
    told = _summary(task) | {
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
        _print_json(told)
        return
    facts = _table("", "")
    facts.show_header = False
    for name, value in _summary(task).items():
        if value is not None and name != "error_code":
            _row(facts, name, _coloured(value) if name == "state" else value)
    _print(facts)
    timeline = _table("at", "event", "facts", title="Timeline")
    for event in task.timeline:
        known = {name: fact for name, fact in event.items() if name not in ("at", "event")}
        _row(timeline, _when(event["at"]), event["event"], _line(known))
    _print(timeline)
    for title in ("decision", "payload", "children", "result", "error"):
        if told.get(title):
            _print(f"[bold]{title.capitalize()}[/bold]")
            _print_json(told[title])


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
        payload=_payload(payload),
        capabilities=tuple(capability or ()),
        prefers=tuple(prefer or ()),
        priority=priority,
        caller="operator",
        idempotency_key=key,
    )
    with _engine() as engine:
        task, created = engine.coordinator.submit(request, admission=engine.admission)
        if wait:
            task = engine.replies.wait(task.id, wait)
    if as_json:
        _print_json(_summary(task) | {"result": task.result, "error": task.error, "new": created})
    else:
        known = "" if created else ", accepted before under this key"
        _print(f"{task.id} {_coloured(task.state.value)} ({escape(task.agent)}{known})")
        if task.state is State.COMPLETED:
            _print_json(task.result)
        elif task.error:
            _print_json(task.error)
    if wait and task.state.final and task.state is not State.COMPLETED:
        raise typer.Exit(1)


@app.command()
def cancel(task_id: TaskId, as_json: AsJson = False) -> None:
    """Cancel a task.

    What it handed over is cancelled with it; one that runs ends when its handler returns.
    """
    with _engine() as engine:
        task = engine.coordinator.cancel(task_id)
    if as_json:
        _print_json(_summary(task))
    elif task.state is State.CANCELLED:
        _print(f"{task.id} is cancelled.")
    else:
        _print(f"{task.id} is {task.state.value}; it ends when its handler returns.")


OfType = Annotated[str | None, typer.Option("--type", help="Only tasks of this type.")]
OfAgent = Annotated[str | None, typer.Option("--agent", help="Only tasks of this agent.")]
OfCode = Annotated[str | None, typer.Option("--code", help="Only those with this error code.")]
Since = Annotated[
    str | None,
    typer.Option(help="Accepted since: 30m, 12h, 7d, or an ISO 8601 time.", show_default=False),
]
OneOrNone = Annotated[
    str | None, typer.Argument(metavar="[TASK]", help="The task's id.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All that the filters find.")]


@dead_letters.command("list")
def dead_letters_list(
    type: OfType = None,
    agent: OfAgent = None,
    code: OfCode = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    with _engine() as engine:
        wanted = _letters(engine, type, agent, code, since)
        found = list(islice(_pages(engine, wanted), limit))
    if as_json:
        _print_json([_summary(task) | {"error": task.error} for task in found])
        return
    table = _table("task", "type", "agent", "accepted", "attempts", "error", "detail")
    for task in found:
        error = task.error or {}
        _row(
            table,
            task.id,
            task.type,
            task.agent,
            _when(task.created_at),
            task.attempts,
            error.get("code", ""),
            error.get("detail", ""),
        )
    _print(table)
    _print(f"{len(found)} dead letters.")


@dead_letters.command("show")
def dead_letters_show(task_id: TaskId, as_json: AsJson = False) -> None:
    """Show a dead letter with every attempt's error."""
    with _engine() as engine:
        task = engine.dead_letters.get(task_id)
    made = attempts(task)
    if as_json:
        shown = _summary(task) | {"error": task.error, "attempts_made": made}
        _print_json(shown | {"timeline": list(task.timeline)})
        return
    facts = _table("", "")
    facts.show_header = False
    for name, value in _summary(task).items():
        if value is not None:
            _row(facts, name, value)
    _print(facts)
    table = _table("attempt", "at", "worker", "ended", "outcome", "error", title="Attempts")
    for each in made:
        _row(
            table,
            each["attempt"],
            _when(each["started_at"]),
            each["worker"],
            _when(each["ended_at"]) if each["ended_at"] else "",
            each["outcome"] or "",
            _line(each["error"] or {}),
        )
    _print(table)


@dead_letters.command("replay")
def dead_letters_replay(
    task_id: OneOrNone = None,
    all: All = False,
    type: OfType = None,
    agent: OfAgent = None,
    code: OfCode = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Let one dead letter, or with --all those that the filters find, run once more."""
    with _engine() as engine:
        wanted = _letters(engine, type, agent, code, since)
        _act(
            task_id,
            all,
            lambda one: engine.dead_letters.replay(one, by=_actor()),
            lambda: engine.dead_letters.replay_all(wanted, _ALL, by=_actor()),
            "replayed",
            as_json,
        )


@dead_letters.command("discard")
def dead_letters_discard(
    task_id: OneOrNone = None,
    all: All = False,
    type: OfType = None,
    agent: OfAgent = None,
    code: OfCode = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Take one dead letter, or with --all those that the filters find, out of the list."""
    with _engine() as engine:
        wanted = _letters(engine, type, agent, code, since)
        _act(
            task_id,
            all,
            lambda one: engine.dead_letters.discard(one, by=_actor()),
            lambda: engine.dead_letters.discard_all(wanted, _ALL, by=_actor()),
            "discarded",
            as_json,
        )


EntryId = Annotated[
    str, typer.Argument(metavar="ENTRY", help="The entry's id.", show_default=False)
]


@outbox.command("list")
def outbox_list(
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
    with _engine() as engine:
        wanted = _outgoing(engine, state, channel, code, since)
        found = list(islice(_entries(engine, wanted), limit))
    if as_json:
        _print_json([_entry_summary(entry) for entry in found])
        return
    table = _table("entry", "channel", "recipient", "state", "committed", "attempts", "reason")
    for entry in found:
        _row(
            table,
            entry.id,
            entry.channel,
            entry.recipient,
            _coloured(entry.state.value),
            _when(entry.created_at),
            entry.attempts,
            (entry.reason or {}).get("code", ""),
        )
    _print(table)
    _print(f"{len(found)} entries.")


@outbox.command("show")
def outbox_show(
    entry_id: EntryId,
    body: Annotated[
        bool, typer.Option("--body", help="Also what it says: it may hold customers' data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one entry."""
    with _engine() as engine:
        entry = engine.outbox.get(entry_id)
    told = _entry_summary(entry) | ({"body": entry.body} if body else {})
    if as_json:
        _print_json(told)
        return
    facts = _table("", "")
    facts.show_header = False
    for name, value in told.items():
        if value is not None:
            shown = _line(value) if isinstance(value, dict) else value
            _row(facts, name, _coloured(shown) if name == "state" else shown)
    _print(facts)


@outbox.command("resolve")
def outbox_resolve(
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
        raise _Refused(f"{decision!r} is neither send_again nor drop")
    if (entry_id is None) == (not all):
        raise _Refused("name one entry, or say --all")
    chosen = cast(Decision, decision)
    with _engine() as engine:
        if entry_id is not None:
            entry = engine.outbox.resolve(entry_id, chosen, by=_actor())
            if as_json:
                _print_json(_entry_summary(entry))
            else:
                _print(f"{entry.id} is {_coloured(entry.state.value)}.")
            return
        if state is None or not state.decided_by_people:
            raise _Refused("--all needs --state failed or --state uncertain")
        wanted = _outgoing(engine, state, channel, code, since)
        told = engine.outbox.resolve_all(wanted, chosen, _ALL, by=_actor())
    if as_json:
        _print_json(told)
    else:
        _print(f"{told['done']} entries decided.")


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
        since=None if since is None else _time(since, engine.clock.now()),
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


PhoneNumber = Annotated[
    str, typer.Argument(metavar="PHONE", help="In any usual way of writing.", show_default=False)
]


@customer.command("export")
def customer_export(
    phone: PhoneNumber,
    out: Annotated[
        Path | None, typer.Option(help="Into this file, for your eyes only.", show_default=False)
    ] = None,
) -> None:
    """Print all that is kept of a customer, as JSON."""
    with _engine() as engine:
        engine.store.read_clock()
        told = engine.customers.export(_e164(phone), by=_actor())
    if out is None:
        _print_json(told)
        return
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(told, file, ensure_ascii=False, indent=2)
    except OSError as error:
        raise _Refused(f"{out} cannot be written: {error.strerror}") from None


@customer.command("erase")
def customer_erase(
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
    with _engine() as engine:
        engine.store.read_clock()
        until = time.monotonic() + wait
        erasure = engine.customers.erase(_e164(phone), by=_actor())
        while erasure.state != "done" and time.monotonic() < until:
            erasure = engine.customers.advance(erasure.id)
            time.sleep(0.1)
    if as_json:
        _print_json(vars(erasure))
        return
    _print(f"Erasure {erasure.id} is {'done' if erasure.state == 'done' else 'under way'}.")
    for name, n in erasure.counts.items():
        _print(f"  {n} {name}")


def _e164(phone: str) -> str:
    try:
        return e164(phone)
    except ValueError as error:
        raise _Refused(f"PHONE {error}") from None


def _letters(
    engine: Engine, type: str | None, agent: str | None, code: str | None, since: str | None
) -> TaskFilter:
    engine.store.read_clock()
    return TaskFilter(
        dead=True,
        type=type,
        agent=agent,
        code=code,
        since=None if since is None else _time(since, engine.clock.now()),
    )


def _act(
    task_id: str | None,
    all: bool,
    on_one: Callable[[str], Task],
    on_all: Callable[[], dict[str, Any]],
    done: str,
    as_json: bool,
) -> None:
    if (task_id is None) == (not all):
        raise _Refused("name one task, or say --all")
    if task_id is not None:
        task = on_one(task_id)
        if as_json:
            _print_json(_summary(task))
        else:
            _print(f"{task.id} is {done}: {_coloured(task.state.value)}.")
        return
    told = on_all()
    if as_json:
        _print_json(told)
        return
    _print(f"{told['done']} dead letters {done}.")
    for each in told["refused"]:
        _print(f"{each['id']} was left as it is: {escape(each['code'])}")


def _actor() -> str:
    """Who the audit says it was."""
    return f"cli:{getpass.getuser()}"


def main() -> None:
    """Entry point of the console script."""
    # As Celery does: agents that are not installed are found where one stands.
    sys.path.insert(0, str(Path.cwd()))
    try:
        app()
    except (OrchestratorError, ConnectionFailure, _Refused, ImportError) as error:
        print(f"orchestrator: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def _engine() -> Iterator[Engine]:
    # Only what an operator must know; every other line is for the workers' logs.
    logs.configure(current(), "error")
    engine = Engine(current())
    try:
        yield engine
    finally:
        engine.close()


def _pages(engine: Engine, wanted: TaskFilter) -> Iterator[Task]:
    position: str | None = None
    while True:
        found, position = engine.store.page(wanted, 200, position)
        yield from found
        if position is None:
            return


def _one_line(error: Exception) -> str:
    if isinstance(error, ConnectionFailure):
        error = StoreUnavailable()
    if isinstance(error, StoreUnavailable):
        return f"{error.detail}: does MongoDB run where MONGODB_URI says?"
    if isinstance(error, InvalidPayload):
        wrong = "; ".join(f"{each['pointer']} {each['detail']}" for each in error.facts["errors"])
        return f"{error.detail}: {wrong}"
    if isinstance(error, OrchestratorError):
        facts = _line(error.facts)
        return error.detail + (f" ({facts})" if facts else "")
    return str(error)


def _payload(given: str) -> dict[str, Any]:
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
        payload = json.loads(text)
    except OSError as error:
        raise _Refused(f"the payload's file cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise _Refused(f"the payload is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise _Refused("the payload must be a JSON object")
    return payload


def _time(text: str, now: dt.datetime) -> dt.datetime:
    """An ISO 8601 time (UTC where it names no zone), or as long ago as `12h` says."""
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            return now - dt.timedelta(**{_UNITS[span[2]]: int(span[1])})
        time = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise _Refused(
            f"--since {text!r}: must be such as 30m, 12h, 7d, or an ISO 8601 time"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def _summary(task: Task) -> dict[str, Any]:
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


# -- showing -----------------------------------------------------------------------------


def _agents_table(told: list[dict[str, Any]]) -> Table:
    table = _table("agent", "status", "workers", "busy", "capabilities")
    for agent in told:
        live = sum(worker["status"] in ("idle", "busy") for worker in agent["workers"])
        _row(
            table,
            agent["agent_id"],
            _coloured(agent["status"]),
            live,
            f"{agent['current_tasks']}/{agent['max_concurrent_tasks']}",
            ", ".join(agent["capabilities"]),
        )
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        # Ids are there to be copied whole.
        table.add_column(
            column, no_wrap=column in ("task", "agent", "worker", "at"), overflow="fold"
        )
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(cell if isinstance(cell, _Coloured) else escape(_cell(cell)) for cell in cells))


class _Coloured(str):
    """Markup of ours; everything else is escaped."""

    __slots__ = ()


def _coloured(state: str) -> _Coloured:
    colour = _COLOURS.get(state)
    return _Coloured(f"[{colour}]{escape(state)}[/{colour}]" if colour else escape(state))


def _cell(value: object) -> str:
    return _when(value) if isinstance(value, dt.datetime) else str(value)


def _line(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_jsonable(fact)}" for name, fact in facts.items())


def _when(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _ran(task: Task) -> str:
    if task.started_at is None or task.finished_at is None:
        return ""
    return f"{(task.finished_at - task.started_at).total_seconds() * 1000:.0f} ms"


def _jsonable(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _print(what: str | Table) -> None:
    console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
    if isinstance(what, Table) and not console.is_terminal:
        # Into a pipe or a file, no line is cut to a screen's width.
        console = Console(width=400, highlight=False)
    console.print(what)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


if __name__ == "__main__":
    main()
