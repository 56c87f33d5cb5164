"""The Celery app of this agent: `celery -A agents.orchestrator worker`."""

from agents.orchestrator.agent import agent
from orchestrator import make_app

app = make_app(agent)
