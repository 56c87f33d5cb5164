"""The Celery app of this agent: `celery -A agents.quote worker`."""

from agents.quote.agent import agent
from orchestrator import make_app

app = make_app(agent)
