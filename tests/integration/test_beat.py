"""What beat asks for goes to the queue of the agent that it asks."""

from celery.beat import Scheduler
from pydantic import BaseModel

from orchestrator import make_app
from orchestrator.declarations import Agent


class Nothing(BaseModel):
    pass


def agent(role: str) -> Agent:
    made = Agent(role=role, name=role, capabilities=[], slots=1)
    made.handles(f"tick_{role}")(_tick)
    made.every(60, f"tick_{role}")
    return made


def _tick(context, payload: Nothing):
    return None


def test_each_agents_tick_goes_to_its_own_queue(engine, settings, monkeypatch):
    monkeypatch.setattr("orchestrator.worker.current", lambda: settings)
    # Of several, as beat's app has them all: the first one's queue is Celery's default.
    app = make_app(agent("first"), agent("second"), name="all")
    scheduler = Scheduler(app=app)
    for name, entry in app.conf.beat_schedule.items():
        scheduler.apply_async(scheduler.Entry(name=name, app=app, **entry), advance=False)
    for role in ("first", "second"):
        assert engine.redis.llen(settings.queue(role)) == 1, role
