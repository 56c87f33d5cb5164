"""The Celery app of this agent: `celery -A agents.data_sync worker`."""

from agents.data_sync.agent import agent
from orchestrator import make_app

app = make_app(agent)
