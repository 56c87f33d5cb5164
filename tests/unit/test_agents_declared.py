"""The agents that ship, as the rest of the system and the field know them."""

import pytest

from orchestrator.declarations import discover
from orchestrator.settings import Settings

AGENTS = discover("agents")

# Role -> tasks at once per worker, capabilities: what existing clients rely on.
KNOWN = {
    "conversation": (
        10,
        "nlp intent_classification entity_extraction context_management "
        "multi_turn_conversation product_knowledge message_generation",
    ),
    "quote": (
        5,
        "quote_generation price_calculation validation product_knowledge specification_parsing",
    ),
    "followup": (
        3,
        "follow_up message_generation scheduling whatsapp_integration n8n_integration",
    ),
    "data_sync": (
        5,
        "google_sheets_sync mongodb_operations external_api_integration data_transformation "
        "mercadolibre_integration",
    ),
    "analytics": (
        3,
        "data_analysis report_generation performance_metrics anomaly_detection insights",
    ),
    "orchestrator": (
        3,
        "task_distribution load_balancing health_monitoring workflow_orchestration",
    ),
}


@pytest.mark.parametrize("role", sorted(KNOWN))
def test_an_agent_is_declared_as_it_is_known(role: str) -> None:
    slots, capabilities = KNOWN[role]
    agent = AGENTS[role]
    assert agent.id == f"{role}_agent"
    assert agent.slots == slots
    assert set(agent.capabilities) == set(capabilities.split())


@pytest.mark.parametrize("role", sorted(KNOWN))
def test_every_payload_refuses_what_it_does_not_know_and_limits_every_text_and_list(
    role: str,
) -> None:
    for declared in AGENTS[role].declaration(Settings()).task_types.values():
        assert list(unlimited(declared.schema, "")) == []


def unlimited(schema: object, where: str) -> list[str]:
    """Places of a JSON Schema where a sender could put as much as he likes."""
    if isinstance(schema, list):
        return [each for n, part in enumerate(schema) for each in unlimited(part, f"{where}/{n}")]
    if not isinstance(schema, dict):
        return []
    found = []
    kind = schema.get("type")
    bounded = {"enum", "const", "pattern", "maxLength", "format"} & schema.keys()
    if kind == "string" and not bounded:
        found.append(where)
    if kind == "array" and "maxItems" not in schema:
        found.append(where)
    if kind == "object" and schema.get("additionalProperties") is not False:
        found.append(where)
    for name, part in schema.items():
        found += unlimited(part, f"{where}/{name}")
    return found


def test_beat_is_asked_for_housekeeping_and_follow_ups() -> None:
    asked = {
        (schedule.task_type, schedule.every_s)
        for agent in AGENTS.values()
        for schedule in agent.schedules
    }
    assert {("housekeeping_report", 300), ("find_due_followups", 60)} <= asked


def test_two_agents_of_one_task_type_take_the_same_payload() -> None:
    schemas: dict[str, object] = {}
    for agent in AGENTS.values():
        for name, declared in agent.declaration(Settings()).task_types.items():
            assert schemas.setdefault(name, declared.schema) == declared.schema, name
