"""An agent for tests: its handlers overrun their limits and kill their process."""

import os
import signal
import threading
import time
from pathlib import Path

from orchestrator import Agent, TaskContext
from probe.holding.agent import Hold, wait_at_the_gate, write

agent = Agent(role="wild", name="Wild agent", capabilities=["misbehaving"], slots=4)


@agent.handles("patient_hold")
def patient_hold(context: TaskContext, payload: Hold) -> dict[str, object]:
    """A neighbour that does as it should."""
    write(payload, f"began {payload.note}")
    wait_at_the_gate(context, payload)
    write(payload, f"ended {payload.note}")
    return {"note": payload.note}


@agent.handles("hold_blindly")
def hold_blindly(context: TaskContext, payload: Hold) -> dict[str, object]:
    """Wait at the gate without asking MongoDB anything."""
    write(payload, f"began {payload.note}")
    while not Path(payload.gate).exists():
        time.sleep(0.02)
    write(payload, f"ended {payload.note}")
    return {"note": payload.note, "attempts": context.task.attempts}


@agent.handles("never_return", soft_limit_s=1, hard_limit_s=4)
def never_return(context: TaskContext, payload: Hold) -> None:
    """Heed nothing; the second attempt returns."""
    write(payload, f"began {payload.note}")
    if context.task.failures == 0:
        threading.Event().wait()


@agent.handles("heed_the_limit", soft_limit_s=0.3, hard_limit_s=30)
def heed_the_limit(context: TaskContext, payload: Hold) -> dict[str, object]:
    """Work until told to stop; the second attempt is quick."""
    while context.task.failures == 0 and not context.should_stop():
        time.sleep(0.02)
    return {"failures": context.task.failures}


@agent.handles("kill_the_process")
def kill_the_process(context: TaskContext, payload: Hold) -> None:
    """Poison: whoever runs it is gone."""
    write(payload, f"began {payload.note}")
    os.kill(os.getpid(), signal.SIGKILL)
