"""One Celery app for every agent: `celery -A agents.all worker` on a small machine, and the
app that beat and Flower are started with."""

from orchestrator import make_app
from orchestrator.declarations import discover

app = make_app(*discover("agents").values(), name="all")
