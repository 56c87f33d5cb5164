"""The quote agent with a gate in front of its handler, so that it can be killed in there."""

import os
from dataclasses import replace
from pathlib import Path

from probe.holding.agent import Hold, wait_at_the_gate, write

from agents.quote.agent import agent
from orchestrator import TaskContext, make_app

GATE = Hold(journal=os.environ["GATE"] + ".journal", gate=os.environ["GATE"])
create_quote = agent.task_types["create_quote"]


def gated(context: TaskContext, wanted: object) -> object:
    """Wait at the gate, then do what the quote agent does."""
    write(GATE, "began")
    wait_at_the_gate(context, GATE)
    return create_quote.handler(context, wanted)


agent.task_types["create_quote"] = replace(create_quote, handler=gated)
app = make_app(agent)
assert Path(GATE.gate).parent.is_dir()
