"""Declarations, read by processes of other releases and while they change."""

import jsonschema_rs
import pytest
from pydantic import BaseModel

from orchestrator.declarations import Agent, Holding, Lapse, Resource
from orchestrator.engine import Engine
from orchestrator.errors import InvalidPayload
from orchestrator.worker import TaskContext


def shop(field: str) -> Agent:
    """A shop whose orders have one field, of this name."""
    lapse = Lapse("state", values=("open",), becomes="lapsed", at="until")
    agent = Agent(
        role="shop",
        name="Shop",
        capabilities=["orders"],
        slots=1,
        resources=[Resource("order", "orders", ("state",), lapse=lapse)],
        holdings=[Holding("orders", session="session_id")],
    )
    order = type("Order", (BaseModel,), {"__annotations__": {field: str}})

    def handle(context: TaskContext, payload: BaseModel) -> None:
        """Nothing."""

    handle.__annotations__["payload"] = order
    agent.handles("order")(handle)
    return agent


def test_what_a_newer_release_declares_is_read_for_what_is_known(engine: Engine) -> None:
    engine.init([shop("size")])
    known = engine.declarations.all(fresh=True)["shop_agent"]
    more = {"holdings.0.sealed": True, "resources.0.lapse.quietly": True, "colour": "red"}
    engine.database["declarations"].update_one({"_id": "shop_agent"}, {"$set": more})
    assert engine.declarations.all(fresh=True)["shop_agent"] == known


def test_a_payload_is_held_against_the_declaration_that_is_given(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while another thread reads a newer one."""
    engine.init([shop("size")])
    store = engine.declarations
    older = store.all(fresh=True)["shop_agent"]
    make = jsonschema_rs.validator_for

    def make_slowly(*args: object, **kwargs: object) -> object:
        monkeypatch.setattr(jsonschema_rs, "validator_for", make)
        store.declare(shop("colour").declaration(engine.settings))
        store.all(fresh=True)
        return make(*args, **kwargs)

    monkeypatch.setattr(jsonschema_rs, "validator_for", make_slowly)
    store.validate(older, "order", {"size": "L"})
    newer = store.all()["shop_agent"]
    store.validate(newer, "order", {"colour": "red"})
    with pytest.raises(InvalidPayload):
        store.validate(newer, "order", {"size": "L"})
