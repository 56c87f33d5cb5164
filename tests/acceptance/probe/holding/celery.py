from orchestrator import make_app
from probe.holding.agent import agent

app = make_app(agent)
