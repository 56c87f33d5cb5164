"""The Celery app of this agent: `celery -A agents.followup worker`."""

from agents.followup.agent import agent
from orchestrator import make_app

app = make_app(agent)
