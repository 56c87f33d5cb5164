from orchestrator import make_app
from torture import clockwork
from torture.agents.work.agent import agent

clockwork.install()
app = make_app(agent)
