"""What is counted, for Prometheus: names, labels and buckets, all in one place.

Keeps secret how the numbers of a prefork pool's children become one worker's: they write them
to files of a folder that the worker reads. Labels are names out of our own code (task types,
agents, routes); never an id, or anything that a customer or client chose.

docs/metrics.md lists them for operators; a test holds it to this file.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pymongo.monitoring
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.logs import log
from orchestrator.registry import Worker
from orchestrator.service import Service
from orchestrator.settings import Settings
from orchestrator.tasks import Task

# When a counter began: twice as many series, and nobody asks.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

PREFIX = "orchestrator"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """What one process counts. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            name = f"{PREFIX}_{name}"
            return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

        self._accepted = counter("tasks_accepted", "Tasks that were stored.", "type", "agent")
        self._attempts = counter(
            "task_attempts", "Runs of handlers, by what became of them.", "type", "agent", "outcome"
        )
        self._run = histogram("task_run_seconds", "Claim to end of a run.", SLOW, "type", "agent")
        self._wait = histogram("task_wait_seconds", "Ready to claim.", SLOW, "type", "agent")
        self._rescues = counter("rescues", "What the rescuer mended.", "kind")
        self._runs = counter("runs_ended", "Workflow runs that ended.", "workflow", "state")
        self._store = histogram("store_command_seconds", "MongoDB's answers.", FAST, "command")
        self._store_failures = counter("store_failures", "Commands that failed.", "command")
        self._requests = counter("http_requests", "Answers.", "method", "route", "status")
        self._request = histogram(
            "http_request_seconds", "Request to answer; of a stream, to its first byte.",
            SLOW, "route",
        )  # fmt: skip
        self.streams = Gauge(
            f"{PREFIX}_streams_open", "Event streams that are open.",
            registry=self.registry, multiprocess_mode="livesum",
        )  # fmt: skip

    def accepted(self, task: Task) -> None:
        """A task was stored."""
        self._accepted.labels(task.type, task.agent).inc()

    def claimed(self, task: Task) -> None:
        """A worker has taken a task."""
        if task.started_at is not None and task.queued_at is not None:
            waited_s = (task.started_at - task.queued_at).total_seconds()
            self._wait.labels(task.type, task.agent).observe(max(waited_s, 0.0))

    def attempted(self, task_type: str, agent: str, outcome: str, run_s: float) -> None:
        """A run of a handler came to its end."""
        self._attempts.labels(task_type, agent, outcome).inc()
        self._run.labels(task_type, agent).observe(run_s)

    def rescued(self, counts: dict[str, int]) -> None:
        """The rescuer has made a pass."""
        for kind, count in counts.items():
            if count:
                self._rescues.labels(kind).inc(count)

    def run_ended(self, workflow: str, state: str) -> None:
        """A workflow run came to its end."""
        self._runs.labels(workflow, state).inc()

    def answered(self, method: str, route: str | None, status: int, took_s: float) -> None:
        """A request was answered; `route` is its pattern, None where there is none."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route or "none", str(status)).inc()
        self._request.labels(route or "none").observe(took_s)

    def stored(self, command: str, took_s: float, *, failed: bool) -> None:
        """MongoDB has answered."""
        self._store.labels(command).observe(took_s)
        if failed:
            self._store_failures.labels(command).inc()


class StoreWatch(pymongo.monitoring.CommandListener):
    """Tells the metrics how long MongoDB takes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        """Of no interest."""

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        """An answer has come."""
        self._metrics.stored(event.command_name, event.duration_micros / 1e6, failed=False)

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        """None has, or an error."""
        self._metrics.stored(event.command_name, event.duration_micros / 1e6, failed=True)


class DeskCollector(Collector):
    """What is true of the whole desk, read when it is asked for: by a front door."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing: being registered must not ask the servers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The desk's gauges; those whose server is away are left out, and `up` says so."""
        up = _gauge("up", "Whether a dependency answers.", "dependency")
        for name, answers in self._service.ready().items():
            up.add_metric([name], float(answers))
        yield up
        try:
            yield from self._of_store()
        except StoreUnavailable:
            log.warning("metrics.store_unavailable")
            return
        try:
            yield from self._of_broker()
        except BrokerUnavailable:
            log.warning("metrics.broker_unavailable")

    def _of_store(self) -> Iterator[Metric]:
        tasks = _gauge("tasks", "Tasks that are kept, by state.", "state")
        counts = {state.value: count for state, count in self._service.counts().items()}
        for state, count in counts.items():
            tasks.add_metric([state], count)
        yield tasks
        dead = _gauge("dead_letters", "Dead letters; counted to 10,000.")
        dead.add_metric([], self._service.dead_letters())
        yield dead
        age_s = self._service.rescue_age_s()
        rescue = _gauge("rescue_age_seconds", "Since a rescuer last showed itself.")
        rescue.add_metric([], float("inf") if age_s is None else age_s)
        yield rescue

    def _of_broker(self) -> Iterator[Metric]:
        depth = _gauge("queue_depth", "Messages in a queue.", "queue", "priority")
        oldest = _gauge("queue_oldest_seconds", "Age of a queue's oldest message.", "queue")
        held = _gauge("queue_held", "Tasks of a queue that its workers hold.", "queue")
        for queue in self._service.queues()["queues"]:
            for priority, count in queue["by_priority"].items():
                depth.add_metric([queue["queue"], priority], count)
            oldest.add_metric([queue["queue"]], queue["oldest_s"] or 0.0)
            held.add_metric([queue["queue"]], queue["held"])
        workers = _gauge("workers", "Workers of an agent, by status.", "agent", "status")
        slots = _gauge("slots", "Slots of an agent's live workers.", "agent")
        for agent in self._service.agents():
            statuses = [worker["status"] for worker in agent["workers"]]
            for status in ("idle", "busy", "error", "offline"):
                workers.add_metric([agent["agent_id"], status], statuses.count(status))
            slots.add_metric([agent["agent_id"]], agent["max_concurrent_tasks"])
        yield from (depth, oldest, held, workers, slots)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=labels)


# -- a worker's own port -----------------------------------------------------------------


def serve(registry: CollectorRegistry, settings: Settings) -> str | None:
    """Serve a worker's metrics in a thread; returns "host:port", None where it cannot be.

    A port that is taken costs the metrics and not the worker.
    """
    if settings.worker_metrics_port == "off":
        return None
    host = settings.worker_metrics_host
    try:
        server, _ = prometheus_client.start_http_server(
            settings.worker_metrics_port, addr=host, registry=registry
        )
    except OSError as error:
        log.warning("metrics.not_served", error=type(error).__name__, errno=error.errno)
        return None
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"{shown}:{server.server_port}"


def gather_from_children() -> CollectorRegistry:
    """Before a prefork pool is forked: have its children count into files, and read them here."""
    folder = tempfile.mkdtemp(prefix="orchestrator-metrics-")
    os.environ[FOLDER_VARIABLE] = folder
    # The library chooses by this variable when it is imported; Celery's command line has
    # imported it by then, for Flower.
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return registry


def forget_children() -> None:
    """Remove the files of `gather_from_children`."""
    if folder := os.environ.pop(FOLDER_VARIABLE, None):
        shutil.rmtree(Path(folder), ignore_errors=True)


def targets(workers: list[Worker]) -> list[dict[str, Any]]:
    """Live workers' metrics in the form of Prometheus' HTTP service discovery."""
    found: dict[str, dict[str, Any]] = {}
    for worker in workers:
        address = worker.beat.metrics
        if address and not worker.offline:
            labels = {"agent": ",".join(sorted(worker.beat.agents)), "worker": worker.beat.node}
            found[worker.beat.node] = {"targets": [address], "labels": labels}
    return [found[node] for node in sorted(found)]
