"""What Prometheus is told, by a front door, by a worker, and by a prefork pool's children."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from api.app import create_app
from orchestrator import metrics
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.registry import Heartbeat
from orchestrator.rescue import Counts
from orchestrator.tasks import Request
from orchestrator.worker import TaskContext

CHILDREN = """
import os, sys, urllib.request
from orchestrator import metrics
from orchestrator.settings import Settings
registry = metrics.gather_from_children()
address = metrics.serve(registry, Settings())
for _ in range(2):
    if not (child := os.fork()):
        counted = metrics.Metrics()
        counted.attempted("sum", "adder", "completed", 0.2)
        os._exit(0)
    os.waitpid(child, 0)
print(urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode())
folder = os.environ[metrics.FOLDER_VARIABLE]
metrics.forget_children()
assert not os.path.exists(folder)
"""


class Nothing(BaseModel):
    """A payload without fields."""


def do_nothing(context: TaskContext, nothing: Nothing) -> None:
    """Do nothing."""


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    agent = Agent(role="idle", name="Idle", capabilities=["idleness"], slots=2)
    agent.handles("do_nothing", needs=["idleness"])(do_nothing)
    engine.init([agent])
    return create_app(engine).test_client()


def told(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_front_door_tells_of_itself_and_of_the_desk(client: FlaskClient, engine: Engine) -> None:
    engine.registry.beat(Heartbeat("w1", "idle@here", {"idle_agent": 2}))
    engine.coordinator.submit(Request(type="do_nothing", payload={}))
    client.get("/livez")
    client.get("/api/tasks/none")
    answer = client.get("/metrics")
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    known = told(answer.text)
    queue = engine.settings.queue("idle")
    assert (
        known["orchestrator_tasks_accepted_total", of(type="do_nothing", agent="idle_agent")] == 1
    )
    assert known["orchestrator_queue_depth", of(queue=queue, priority="normal")] == 1
    assert known["orchestrator_queue_oldest_seconds", of(queue=queue)] >= 0
    assert known["orchestrator_workers", of(agent="idle_agent", status="idle")] == 1
    assert known["orchestrator_slots", of(agent="idle_agent")] == 2
    assert known["orchestrator_tasks", of(state="queued")] == 1
    assert known["orchestrator_dead_letters", ()] == 0
    assert known["orchestrator_up", of(dependency="mongodb")] == 1
    assert known["orchestrator_store_command_seconds_count", of(command="insert")] >= 1
    seen = of(method="GET", route="/api/tasks/<task_id>", status="404")
    assert known["orchestrator_http_requests_total", seen] == 1


def test_workers_are_found_by_prometheus(client: FlaskClient, engine: Engine) -> None:
    engine.registry.beat(Heartbeat("w1", "idle@here", {"idle_agent": 2}, metrics="10.0.0.7:9101"))
    engine.registry.beat(Heartbeat("w2", "idle@there", {"idle_agent": 2}))
    assert client.get("/api/orchestrator/metrics/targets").json == [
        {"targets": ["10.0.0.7:9101"], "labels": {"agent": "idle_agent", "worker": "idle@here"}}
    ]


def test_a_worker_serves_what_it_counts_and_a_taken_port_costs_no_worker(engine: Engine) -> None:
    engine.metrics.rescued({"taken_back": 2, "promoted": 0})
    address = metrics.serve(engine.metrics.registry, engine.settings)
    assert address is not None
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        known = told(answer.read().decode())
    assert known["orchestrator_rescues_total", of(kind="taken_back")] == 2
    assert ("orchestrator_rescues_total", of(kind="promoted")) not in known
    taken = engine.settings.model_copy(update={"worker_metrics_port": int(address.split(":")[1])})
    assert metrics.serve(engine.metrics.registry, taken) is None
    off = engine.settings.model_copy(update={"worker_metrics_port": "off"})
    assert metrics.serve(engine.metrics.registry, off) is None


def test_what_a_pools_children_count_is_one_workers_also_when_they_are_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    labels = of(type="sum", agent="adder", outcome="completed")
    assert told(done.stdout)["orchestrator_task_attempts_total", labels] == 2


def test_the_document_names_every_metric_and_no_other(client: FlaskClient, project: Path) -> None:
    text = client.get("/metrics").text
    types = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    document = (project / "docs/metrics.md").read_text()
    named = set(re.findall(r"`(orchestrator_[a-z_]+)`", document))
    assert named == set(types)


def test_the_document_names_every_outcome_and_every_kind(project: Path) -> None:
    rows = re.findall(r"^\| `orchestrator_.*", (project / "docs/metrics.md").read_text(), re.M)
    named = [re.findall(r"`(\w+)`", row) for row in rows]
    document = {metric: set(values) for metric, *values in named}
    assert document["orchestrator_rescues_total"] == set(vars(Counts()))
    code = (project / "orchestrator/worker.py").read_text()
    outcomes = set(re.findall(r'(?:return|outcome =) "([a-z_]+)"$', code, re.M)) - {"dropped"}
    assert {"completed", "put_off", "left"} <= outcomes
    assert document["orchestrator_task_attempts_total"] == outcomes


def of(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))
