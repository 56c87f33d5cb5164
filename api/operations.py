"""What operators and their machines look at: health, readiness, agents, queues, status."""

from typing import Any

from apiflask import APIBlueprint
from flask import Response, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from api import schemas
from api.auth import Access
from api.errors import NotReady
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.metrics import DeskCollector, targets

LOOKING = {
    401: "Not on this machine, and no known credentials.",
    403: "Only the operator may.",
    503: "A dependency is unavailable.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Health, and everything under `/api/orchestrator`."""
    desk = APIBlueprint("operations", __name__, tag="Operations")

    @desk.get("/health")
    @desk.get("/livez")
    @desk.output(schemas.Alive)
    @desk.doc(summary="Is the process alive")
    def alive() -> Any:
        """Healthy as soon as the process answers, whatever its dependencies do."""
        return {"status": "healthy"}

    @desk.get("/readyz")
    @desk.output(schemas.Ready)
    @desk.doc(
        summary="Are messages accepted and done",
        responses={503: "A dependency is away, or nobody rescues tasks."},
    )
    def ready() -> Any:
        """MongoDB and Redis answer, and a rescuer is at work; `?verbose` shows each."""
        with prompt(engine):
            checks = _checks(engine)
        if not (checks["mongodb"] and checks["redis"] and checks["rescue"]):
            raise NotReady(checks=checks)
        return {"status": "ready", "checks": checks if "verbose" in request.args else None}

    @desk.get("/api/orchestrator/status")
    @access.onlooker
    @desk.output(schemas.Status)
    @desk.doc(summary="The whole desk", responses=LOOKING)
    def status() -> Any:
        """Operational, degraded or down; agents; counts of tasks."""
        with prompt(engine):
            return engine.service.status()

    @desk.get("/api/orchestrator/agents")
    @access.onlooker
    @desk.output(schemas.Agents)
    @desk.doc(summary="All agents", responses=LOOKING)
    def agents() -> Any:
        """Every declared agent, also those without a worker."""
        with prompt(engine):
            return {"agents": engine.service.agents()}

    @desk.get("/api/orchestrator/agents/<agent_id>")
    @access.onlooker
    @desk.output(schemas.Agent)
    @desk.doc(summary="One agent", responses=LOOKING | {404: "Nobody declared it."})
    def agent(agent_id: str) -> Any:
        """An agent with its workers."""
        with prompt(engine):
            return engine.service.agent(agent_id)

    @desk.get("/api/orchestrator/agents/<agent_id>/health")
    @access.onlooker
    @desk.output(schemas.AgentHealth)
    @desk.doc(summary="An agent's health", responses=LOOKING | {404: "Nobody declared it."})
    def agent_health(agent_id: str) -> Any:
        """Its status, its last sign of life, and what is wrong."""
        with prompt(engine):
            return engine.service.agent_health(agent_id)

    @desk.get("/api/orchestrator/tasks/queue")
    @access.onlooker
    @desk.output(schemas.Queues)
    @desk.doc(summary="All queues", responses=LOOKING)
    def queues() -> Any:
        """Depth and oldest age of each agent's queue by priority, and what its workers hold."""
        with prompt(engine):
            return engine.service.queues()

    metrics = CollectorRegistry()
    metrics.register(engine.metrics.registry)
    metrics.register(DeskCollector(engine.service))

    text_plain: Any = {
        "description": "What this front door counts, and what is true of the desk.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }

    @desk.get("/metrics")
    @access.onlooker
    @desk.doc(summary="Metrics", responses={200: text_plain, **LOOKING})
    def measured() -> Any:
        """For Prometheus. Each worker has a port of its own for what it counts."""
        with prompt(engine):
            text = generate_latest(metrics)
        return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)

    @desk.get("/api/orchestrator/metrics/targets")
    @access.onlooker
    @desk.output(schemas.MetricsTargets)
    @desk.doc(summary="Where workers serve their metrics", responses=LOOKING)
    def metrics_targets() -> Any:
        """For Prometheus' `http_sd_configs`."""
        with prompt(engine):
            found = targets(engine.service.workers())
        return schemas.MetricsTargets.model_validate(found)

    return desk


def _checks(engine: Engine) -> dict[str, Any]:
    answers = engine.service.ready()
    rescue_age_s = None
    if answers["mongodb"]:
        try:
            rescue_age_s = engine.service.rescue_age_s()
        except StoreUnavailable:
            answers["mongodb"] = False
    # Two leases, as in the desk's status: a rescuer's lock is taken over after one.
    rescued = rescue_age_s is not None and rescue_age_s < 2 * engine.settings.lease_s
    return answers | {"rescue": rescued, "rescue_age_s": rescue_age_s}
