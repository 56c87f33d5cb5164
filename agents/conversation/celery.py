"""The Celery app of this agent: `celery -A agents.conversation worker`."""

from agents.conversation.agent import agent
from orchestrator import make_app

app = make_app(agent)
