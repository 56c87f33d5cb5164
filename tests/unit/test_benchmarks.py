"""What is compared with is what its users run."""

import os
import subprocess
import sys

from benchmarks.bare import EVENTS_VARIABLE, URL_VARIABLE

SHOW = """
import sys
from celery.bin.celery import celery
from benchmarks.bare import app
connection = app.connection_for_write()
print(type(connection.transport).__module__, type(connection.transport).Channel.__module__)
print(app.conf.worker_send_task_events, app.conf.worker_consumer, app.conf.result_backend)
print(*sorted(name for name in sys.modules if name.split(".")[0] == "orchestrator"))
"""
URL = "redis://127.0.0.1:1/0"


def shown(before: str, events: str) -> list[str]:
    """What bare Celery's app is made of, in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-c", before + SHOW],
        env=os.environ | {URL_VARIABLE: URL, EVENTS_VARIABLE: events},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return told.stdout.splitlines()


def test_bare_celery_runs_without_anything_of_ours():
    transport, options, ours = shown("", "yes")
    assert transport == "kombu.transport.redis kombu.transport.redis"
    assert options == f"True celery.worker.consumer:Consumer {URL}"
    assert ours == ""
    assert shown("", "no")[1].startswith("False ")


def test_bare_celery_calls_by_its_own_transport_beside_ours():
    transport, _, ours = shown("import orchestrator.broker\n", "yes")
    assert transport == "kombu.transport.redis kombu.transport.redis"
    assert "orchestrator.broker" in ours
