from orchestrator import make_app
from probe.relay.agent import agent

app = make_app(agent)
