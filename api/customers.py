"""What is kept of a customer: given out, or erased.

The phone is in the body, since addresses of requests are logged.
"""

from typing import Any

from apiflask import APIBlueprint

from api import schemas
from api.auth import Access, Caller
from api.promptness import prompt
from orchestrator.customers import Erasure
from orchestrator.engine import Engine

OPERATING = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    503: "The task store is unavailable.",
}
WITH_BODY = OPERATING | {
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "It is not a phone number.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/customers`."""
    customers = APIBlueprint("customers", __name__, tag="Customers")

    @customers.post("/api/customers/export")
    @access.operator
    @customers.output(schemas.CustomerData)
    @customers.input(schemas.CustomerPhone)
    @customers.doc(summary="Export a customer's data", responses=WITH_BODY)
    def export(caller: Caller, json_data: schemas.CustomerPhone) -> Any:
        """All that is kept of a customer: sessions, messages, tasks, quotes, files, ..."""
        phone = schemas.e164(json_data.phone, "phone")
        return engine.customers.export(phone, by=caller.name)

    @customers.post("/api/customers/erase")
    @access.operator
    @customers.output(schemas.Erasure, status_code=202, description="It will be done.")
    @customers.input(schemas.CustomerPhone)
    @customers.doc(summary="Erase a customer's data", responses=WITH_BODY)
    def erase(caller: Caller, json_data: schemas.CustomerPhone) -> Any:
        """Erase all that is kept of a customer up to now; `Location` tells when it is done.

        Running tasks are asked to stop and waited for, others cancelled. Quotes stay, without
        name, phone and conversation.
        """
        phone = schemas.e164(json_data.phone, "phone")
        with prompt(engine):
            erasure = engine.customers.erase(phone, by=caller.name)
        return _shown(erasure), 202, {"Location": f"/api/customers/erasures/{erasure.id}"}

    @customers.get("/api/customers/erasures/<erasure_id>")
    @access.operator
    @customers.output(schemas.Erasure)
    @customers.doc(
        summary="Read an erasure",
        responses=OPERATING | {404: "No such erasure."},
    )
    def read(erasure_id: str, caller: Caller) -> Any:
        """How far an erasure is."""
        with prompt(engine):
            return _shown(engine.customers.get(erasure_id))

    return customers


def _shown(erasure: Erasure) -> dict[str, Any]:
    return dict(vars(erasure))
