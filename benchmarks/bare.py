"""The other side: Celery alone, with its own Redis result backend and a task that does nothing.

The same pool, prefetch and acknowledgement as ours, and events unless it is told otherwise; all
else is Celery's default.
"""

import os

from celery import Celery

URL_VARIABLE = "BARE_CELERY_URL"
EVENTS_VARIABLE = "BARE_CELERY_EVENTS"
QUEUE = "bare"


def make_bare_app(url: str, *, events: bool) -> Celery:
    """A Celery app on this Redis."""
    app = Celery("bare", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        # Its own transport: ours takes the name "redis" wherever it is imported.
        broker_transport="kombu.transport.redis:Transport",
        task_default_queue=QUEUE,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_send_task_events=events,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="noop")
    def noop() -> None:
        """Do nothing."""

    return app


if URL_VARIABLE in os.environ:
    app = make_bare_app(os.environ[URL_VARIABLE], events=os.environ[EVENTS_VARIABLE] == "yes")
