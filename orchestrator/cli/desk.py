"""How the desk is: its declarations, health, agents and workers."""

import sys
from typing import Any

import typer
from rich.table import Table

from orchestrator.cli.terminal import (
    AsJson,
    coloured,
    connected,
    print_json,
    row,
    say,
    table_of,
)
from orchestrator.declarations import discover

app = typer.Typer()


@app.command()
def init(as_json: AsJson = False) -> None:
    """Make indexes and declare the agents; repeatable."""
    with connected() as engine:
        agents = discover(engine.settings.agents_package)
        unstaffed = engine.init([*agents.values()])
        declared: list[dict[str, Any]] = [
            {
                "agent_id": agent.id,
                "queue": engine.settings.queue(agent.role),
                "slots": agent.slots,
                "task_types": sorted(agent.task_types),
            }
            for agent in agents.values()
        ]
    for problem in unstaffed:
        print(problem, file=sys.stderr)
    if as_json:
        told = {"database": engine.settings.mongodb_database, "agents": declared}
        print_json(told | {"unstaffed": unstaffed})
        return
    table = table_of("agent", "queue", "slots", "task types")
    for each in declared:
        row(table, each["agent_id"], each["queue"], each["slots"], ", ".join(each["task_types"]))
    say(table)
    say(f"{len(declared)} agents declared in {engine.settings.mongodb_database}.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show how the desk is, and why."""
    with connected() as engine:
        told = engine.service.status()
        told["dependencies"] = engine.service.ready()
    if as_json:
        print_json(told)
        return
    health, rescue = told["health"], told["orchestrator"]
    say(f"The desk is [bold]{coloured(told['status'])}[/bold].")
    for name, answers in told["dependencies"].items():
        if not answers:
            say(f"[red]{name} does not answer.[/red]")
    table = table_of("", "")
    table.show_header = False
    agents, tasks = health["agents"], health["tasks"]
    row(table, "agents", f"{agents['online']} of {agents['total']} online")
    row(table, "in queues", health["queue_size"])
    row(table, "tasks", ", ".join(f"{n} {name}" for name, n in tasks.items()))
    age_s = rescue["rescue_age_s"]
    seen = "never seen" if age_s is None else f"seen {age_s} s ago"
    row(table, "rescuer", f"{rescue['rescuer']}, {seen}")
    say(table)
    say(_agents_table(told["agents"]))


@app.command()
def agents(as_json: AsJson = False) -> None:
    """List the agents and their workers."""
    with connected() as engine:
        told = engine.service.agents()
    if as_json:
        print_json(told)
        return
    if not told:
        say("No agent is declared: run `orchestrator init`, or start a worker.")
        return
    say(_agents_table(told))
    workers = table_of(
        "worker", "agent", "status", "busy", "completed", "failed", "mean run", "problem"
    )
    for agent in told:
        for worker in agent["workers"]:
            row(
                workers,
                worker["worker"],
                agent["agent_id"],
                coloured(worker["status"]),
                f"{worker['current_tasks']}/{worker['slots']}",
                worker["completed"],
                worker["failed"],
                f"{worker['mean_run_s'] * 1000:.0f} ms",
                worker["problem"] or "",
            )
    if workers.row_count:
        say(workers)


def _agents_table(told: list[dict[str, Any]]) -> Table:
    table = table_of("agent", "status", "workers", "busy", "capabilities")
    for agent in told:
        live = sum(worker["status"] in ("idle", "busy") for worker in agent["workers"])
        row(
            table,
            agent["agent_id"],
            coloured(agent["status"]),
            live,
            f"{agent['current_tasks']}/{agent['max_concurrent_tasks']}",
            ", ".join(agent["capabilities"]),
        )
    return table
