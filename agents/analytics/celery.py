"""The Celery app of this agent: `celery -A agents.analytics worker`."""

from agents.analytics.agent import agent
from orchestrator import make_app

app = make_app(agent)
