"""Is this container of use? `python -m deploy.health worker | beat`.

What compose.yaml asks of containers that nobody can connect to; ends with 1 and a line that
says why not. A process that is alive is not asked for: its end is its container's end.
"""

import socket
import sys
import time
from collections.abc import Sequence

from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.errors import OrchestratorError
from orchestrator.registry import Registry, open_redis
from orchestrator.settings import load
from orchestrator.tasks import Request

# In periods of the schedule: one has begun, one may be on its way, one is for a slow start.
BEAT_PATIENCE = 3


def worker(host: str) -> str | None:
    """Why no worker of this host is of use, as the desk sees it; None if one is.

    A worker's name ends with its host, and each container is a host of its own.

    Raises:
        BrokerUnavailable: Redis does not answer.
    """
    settings = load()
    known = Registry(open_redis(settings), settings).load([]).workers
    here = [each for each in known if f"@{host}-" in each.beat.node]
    if any(each.status in ("idle", "busy") for each in here):
        return None
    reasons = [each.beat.trouble or each.status for each in here]
    return "; ".join(reasons) or "its worker has not reported yet"


def beat() -> str | None:
    """Why beat's shortest schedule does not turn into tasks; None if it does.

    That is the whole way: beat, its queue, a worker that accepts, MongoDB.

    Raises:
        StoreUnavailable: MongoDB does not answer.
    """
    settings = load()
    agents = discover(settings.agents_package).values()
    schedules = [schedule for agent in agents for schedule in agent.schedules]
    if not schedules:
        return None
    shortest = min(schedules, key=lambda schedule: schedule.every_s)
    store = Engine(settings).store
    now = int(time.time() // shortest.every_s)
    for period in range(now, now - BEAT_PATIENCE, -1):
        # As a worker accepts it for beat.
        request = Request(
            type=shortest.task_type,
            payload=shortest.payload,
            caller="beat",
            idempotency_key=f"{shortest.task_type}/{period}",
        )
        if store.by_idempotency_key(request) is not None:
            return None
    return f"no {shortest.task_type} was accepted for {BEAT_PATIENCE} periods"


def main(arguments: Sequence[str]) -> None:
    """Ask what the command line says."""
    match arguments:
        case ["worker"]:
            problem = worker(socket.gethostname())
        case ["beat"]:
            problem = beat()
        case _:
            sys.exit("usage: python -m deploy.health worker | beat")
    if problem:
        sys.exit(problem)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OrchestratorError as error:
        sys.exit(str(error))
