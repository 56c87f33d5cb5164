from orchestrator import make_app
from probe.wild.agent import agent

app = make_app(agent)
