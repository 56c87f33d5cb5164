"""The engine of the front desk. It knows no business, and imports no agent and no API."""

from orchestrator.declarations import Agent
from orchestrator.errors import TaskError
from orchestrator.outbox import Outgoing
from orchestrator.tasks import Priority, Request
from orchestrator.worker import HandOver, TaskContext, make_app

__all__ = [
    "Agent",
    "HandOver",
    "Outgoing",
    "Priority",
    "Request",
    "TaskContext",
    "TaskError",
    "make_app",
]
