from orchestrator import make_app
from probe.answering.agent import agent

app = make_app(agent)
