"""What agents declare, in code and in the store.

An agent's folder builds one `Agent` and hangs its handlers on it. Its worker's start (and
`orchestrator init`) write the `Declaration` to MongoDB. The front door knows agents from
there only, so it validates payloads and answers 422 without importing any agent.

Collection `declarations` (one document per agent, never expires):

    _id           agent id ("quote_agent")
    role          folder, queue and node name ("quote")
    name          for people
    capabilities  [str]
    slots         int: tasks at once, per worker
    task_types    {type: {payload: JSON Schema, needs: [capability], public: bool}}
    metadata      {str: JSON}
    resources     [{name, collection, fields, filters, lapse}]
    registered_at first written
    updated_at    last written

Written by `DeclarationStore.declare`, read by everyone.
"""

import datetime as dt
import importlib
import importlib.util
import inspect
import json
import pkgutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema_rs
from pydantic import BaseModel
from pymongo.database import Database

from orchestrator.errors import AgentNotFound, InvalidPayload, NoCapableAgent, StoreUnavailable
from orchestrator.settings import Settings
from orchestrator.tasks import store_errors

Document = dict[str, Any]
Handler = Callable[..., Any]


@dataclass(frozen=True)
class TaskType:
    """What can be asked of an agent: payload model, capabilities needed, the handler.

    Without limits of its own, those of the settings hold.
    """

    name: str
    payload: type[BaseModel]
    needs: frozenset[str]
    handler: Handler
    public: bool
    soft_limit_s: float | None = None
    hard_limit_s: float | None = None

    def limits_s(self, soft_s: float, hard_s: float) -> tuple[float, float]:
        """Its soft and hard time limit, given the defaults of both."""
        soft = self.soft_limit_s or min(soft_s, self.hard_limit_s or soft_s)
        return soft, self.hard_limit_s or soft + (hard_s - soft_s)


@dataclass(frozen=True)
class Schedule:
    """A task that beat asks for at a fixed pace."""

    task_type: str
    every_s: float
    payload: Document


@dataclass(frozen=True)
class Lapse:
    """A field that changes by itself with time: where it is one of `values` and the time in
    the field `at` is over, it is shown as `becomes`, whatever is stored still."""

    field: str
    values: tuple[str, ...]
    becomes: str
    at: str


@dataclass(frozen=True)
class Resource:
    """Documents that an agent keeps and others may look at (`orchestrator.resources`).

    Their `_id` begins with an id of `tasks.new_id`, so that it rises with time. `fields` are
    those that are shown. By each of `filters` a list can be narrowed; the agent makes an index
    of it and `_id`, the rarest value first.
    """

    name: str
    collection: str
    fields: tuple[str, ...]
    filters: tuple[str, ...] = ()
    lapse: Lapse | None = None


@dataclass(frozen=True)
class Holding:
    """A collection that holds customers' data: how a customer's is found, and what becomes of
    it when the customer is erased.

    `session` and `phone` (in a usual way of writing, best in E.164) are the paths of the fields
    that tell whose a document is; the agent makes an index of the session's. `began` is the path
    of what tells when that began which led to the document: a time, or an id that is a task's or
    begins with one. So what an old task writes late is not taken for a customer's new life; and
    what has the task's id as its own is found by it as well. With `anonymise` these fields become
    null, and `revision`, where there is one, rises; without, the document goes. With `files`, so
    do files whose id is the document's and a dot.
    """

    collection: str
    session: str | None = None
    phone: str | None = None
    began: str = "_id"
    anonymise: tuple[str, ...] = ()
    revision: str | None = None
    files: bool = False


@dataclass
class Agent:
    """A declared role. Build one per folder, then hang handlers on it with `handles`.

    `slots` is how many tasks one worker runs at once. `shares` are the keys of a session's
    shared context that this agent writes, beside its own namespace. `setup(engine)`, where
    given, runs once at the start of each worker and in `orchestrator init`: it makes indexes
    and seeds data.
    `workflows` is a folder of workflow definitions (*.yaml) that it brings along.
    `where` names capabilities that it has only where the settings say so.
    `resources` are what the front door may list and show of what the agent keeps; `holdings`
    what it keeps of customers, so that it is given out and erased with the rest. `commands` are
    what the command line asks of the agent's code in a process of its own: each takes the
    process's engine and JSON-able arguments, and returns what is JSON-able.
    """

    role: str
    name: str
    capabilities: Iterable[str]
    slots: int
    shares: Iterable[str] = ()
    metadata: Document = field(default_factory=dict)
    setup: Callable[[Any], None] | None = None
    where: Mapping[str, Callable[[Settings], bool]] = field(default_factory=dict)
    workflows: Path | None = None
    resources: Iterable[Resource] = ()
    holdings: Iterable[Holding] = ()
    commands: Mapping[str, Callable[[Any, Document], Document]] = field(default_factory=dict)
    task_types: dict[str, TaskType] = field(default_factory=dict, init=False)
    schedules: list[Schedule] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.capabilities = tuple(self.capabilities)
        self.resources = tuple(self.resources)
        self.shares = tuple(self.shares)
        if not all(name.isidentifier() for name in self.shares):
            raise ValueError(f"{self.id}: shared keys must be identifiers")
        self.holdings = tuple(self.holdings)

    @property
    def id(self) -> str:
        """The agent's id: its role and `_agent`."""
        return f"{self.role}_agent"

    def handles(
        self,
        name: str,
        *,
        needs: Iterable[str] = (),
        public: bool = True,
        soft_limit_s: float | None = None,
        hard_limit_s: float | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare a task type by its handler, `handler(context, payload) -> result`.

        The payload's pydantic model is the type of the handler's second parameter. `needs`
        are the capabilities of a task of this type; the agent must have them itself.
        `public` types can be asked for at the front door, others only by other tasks.

        Past `soft_limit_s` the handler's `should_stop` says so, and the attempt counts as a
        failure when it stops; past `hard_limit_s` the attempt is a failure and the process that
        runs it ends. Without them, the settings' limits hold.
        """
        given = [limit for limit in (soft_limit_s, hard_limit_s) if limit is not None]
        if given != sorted(given) or any(limit <= 0 for limit in given):
            raise ValueError(f"{name}: limits must be above 0, the hard one not below the soft")

        def declare(handler: Handler) -> Handler:
            second = list(inspect.signature(handler).parameters)[1]
            payload = get_type_hints(handler)[second]
            if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
                raise TypeError(f"{name}: the handler's second parameter must be a pydantic model")
            missing = set(needs) - set(self.capabilities)
            if missing:
                raise ValueError(f"{name} needs {sorted(missing)}, which {self.id} does not have")
            if name in self.task_types:
                raise ValueError(f"{self.id} declares {name} twice")
            self.task_types[name] = TaskType(
                name, payload, frozenset(needs), handler, public, soft_limit_s, hard_limit_s
            )
            return handler

        return declare

    def every(self, every_s: float, task_type: str, payload: Document | None = None) -> None:
        """Ask beat for a task of this agent at a fixed pace, in seconds."""
        self.schedules.append(Schedule(task_type, every_s, payload or {}))

    def declaration(self, settings: Settings) -> "Declaration":
        """What the rest of the system sees of this agent."""
        more = {capability for capability, has in self.where.items() if has(settings)}
        return Declaration(
            agent_id=self.id,
            role=self.role,
            name=self.name,
            capabilities=frozenset(more.union(self.capabilities)),
            slots=self.slots,
            shares=frozenset(self.shares),
            task_types={
                task_type.name: DeclaredType(
                    schema=task_type.payload.model_json_schema(),
                    needs=task_type.needs,
                    public=task_type.public,
                )
                for task_type in self.task_types.values()
            },
            metadata=self.metadata,
            resources=tuple(self.resources),
            holdings=tuple(self.holdings),
        )


@dataclass(frozen=True)
class DeclaredType:
    """A task type as the front door knows it."""

    schema: Document
    needs: frozenset[str]
    public: bool


@dataclass(frozen=True)
class Declaration:
    """An agent as the front door knows it."""

    agent_id: str
    role: str
    name: str
    capabilities: frozenset[str]
    slots: int
    task_types: Mapping[str, DeclaredType]
    metadata: Document
    resources: tuple[Resource, ...] = ()
    shares: frozenset[str] = frozenset()
    holdings: tuple[Holding, ...] = ()
    registered_at: dt.datetime | None = None

    def to_document(self) -> Document:
        """The stored form, without its id and times."""
        return {
            "role": self.role,
            "name": self.name,
            "capabilities": sorted(self.capabilities),
            "slots": self.slots,
            "shares": sorted(self.shares),
            # A list: a task type may hold characters that a field name may not.
            "task_types": [
                {
                    "name": name,
                    "payload": declared.schema,
                    "needs": sorted(declared.needs),
                    "public": declared.public,
                }
                for name, declared in sorted(self.task_types.items())
            ],
            "metadata": self.metadata,
            "resources": [asdict(resource) for resource in self.resources],
            "holdings": [asdict(holding) for holding in self.holdings],
        }

    @classmethod
    def from_document(cls, document: Document) -> "Declaration":
        """The inverse of `to_document`."""
        return cls(
            agent_id=document["_id"],
            role=document["role"],
            name=document["name"],
            capabilities=frozenset(document["capabilities"]),
            slots=document["slots"],
            task_types={
                declared["name"]: DeclaredType(
                    # Through JSON: BSON's integers are a type that the validator refuses.
                    json.loads(json.dumps(declared["payload"])),
                    frozenset(declared["needs"]),
                    declared["public"],
                )
                for declared in document["task_types"]
            },
            metadata=document["metadata"],
            resources=tuple(map(_resource, document.get("resources", ()))),
            shares=frozenset(document.get("shares", ())),
            holdings=tuple(
                Holding(**_known(Holding, each) | {"anonymise": tuple(each["anonymise"])})
                for each in document.get("holdings", ())
            ),
            registered_at=document["registered_at"],
        )


def discover(package: str) -> dict[str, Agent]:
    """Import every folder of `package` that has an `agent` module; role -> Agent.

    A new agent is found by being there: nothing lists the folders.
    """
    root = importlib.import_module(package)
    agents = {}
    for module in pkgutil.iter_modules(root.__path__):
        if not module.ispkg or importlib.util.find_spec(f"{package}.{module.name}.agent") is None:
            continue
        agent: Agent = importlib.import_module(f"{package}.{module.name}.agent").agent
        if agent.role != module.name:
            raise ValueError(f"{package}/{module.name} declares the role {agent.role}")
        agents[agent.role] = agent
    return agents


class DeclarationStore:
    """Declarations in MongoDB, read through a short-lived copy.

    Every method raises StoreUnavailable when MongoDB does not answer.
    """

    def __init__(self, database: Database[Document], refresh_s: float) -> None:
        self._collection = database["declarations"]
        self._refresh_s = refresh_s
        self._read_at = float("-inf")
        self._failed_at = float("-inf")
        self._known: dict[str, Declaration] = {}
        self._validators: dict[tuple[str, str], tuple[Document, Any]] = {}
        self._lock = threading.Lock()

    def declare(self, declaration: Declaration) -> None:
        """Write a declaration; the newest start wins."""
        now = dt.datetime.now(dt.UTC)
        with store_errors():
            self._collection.update_one(
                {"_id": declaration.agent_id},
                {
                    "$set": declaration.to_document() | {"updated_at": now},
                    "$setOnInsert": {"registered_at": now},
                },
                upsert=True,
            )
        self._read_at = float("-inf")

    def all(self, *, fresh: bool = False) -> dict[str, Declaration]:
        """Agent id -> declaration, at most `refresh_s` old."""
        asked_at = time.monotonic()
        if not fresh and asked_at - self._read_at <= self._refresh_s:
            return self._known
        with self._lock:
            # Who waited for another's reading has no need of one of its own, nor of another's
            # failure once more.
            if self._failed_at > asked_at:
                raise StoreUnavailable()
            if self._read_at < asked_at:
                self._read()
        return self._known

    def _read(self) -> None:
        try:
            with store_errors():
                documents = list(self._collection.find())
        except StoreUnavailable:
            self._failed_at = time.monotonic()
            raise
        known = {document["_id"]: Declaration.from_document(document) for document in documents}
        if known != self._known:
            self._known, self._validators = known, {}
        self._read_at = time.monotonic()

    def agent(self, agent_id: str) -> Declaration:
        """One declaration.

        Raises:
            AgentNotFound: nobody declared it.
        """
        known = self.all()
        if agent_id not in known:
            known = self.all(fresh=True)
        if agent_id not in known:
            raise AgentNotFound(agent_id=agent_id)
        return known[agent_id]

    def resource(self, name: str) -> Resource | None:
        """What some agent keeps under this name; None where nobody declared it."""
        for fresh in (False, True):
            for declaration in self.all(fresh=fresh).values():
                for resource in declaration.resources:
                    if resource.name == name:
                        return resource
        return None

    def capable(
        self, task_type: str, capabilities: Iterable[str], *, public: bool = False
    ) -> list[Declaration]:
        """The agents that handle the type and have all that it needs and all asked for.

        With `public`, only where the type may be asked for from outside.

        Raises:
            NoCapableAgent: none does, even after reading the declarations afresh.
        """
        asked = set(capabilities)
        for fresh in (False, True):
            declared = self.all(fresh=fresh)
            found = [
                declaration
                for declaration in declared.values()
                if (known := declaration.task_types.get(task_type)) is not None
                and asked | known.needs <= declaration.capabilities
                and (known.public or not public)
            ]
            if found:
                return found
        raise NoCapableAgent(
            task_type=task_type,
            capabilities=sorted(asked),
            task_types=sorted(
                {
                    name
                    for declaration in declared.values()
                    for name, known in declaration.task_types.items()
                    if known.public
                }
            ),
        )

    def validate(self, declaration: Declaration, task_type: str, payload: Any) -> None:
        """Check a payload against the declared JSON Schema.

        Raises:
            InvalidPayload: every error, with its JSON pointer.
        """
        key = (declaration.agent_id, task_type)
        declared = declaration.task_types[task_type].schema
        kept = self._validators.get(key)
        # Of this very declaration: whoever still has an older one may have put its own there.
        if kept is None or kept[0] is not declared:
            # What a customer sent is never repeated.
            kept = declared, jsonschema_rs.validator_for(declared, mask="the value")
            self._validators[key] = kept
        errors = [
            {"pointer": _pointer(error), "detail": error.message}
            for error in kept[1].iter_errors(payload)
        ]
        if errors:
            raise InvalidPayload(task_type=task_type, errors=errors)


def _resource(document: Document) -> Resource:
    lapse = document["lapse"]
    return Resource(
        name=document["name"],
        collection=document["collection"],
        fields=tuple(document["fields"]),
        filters=tuple(document["filters"]),
        lapse=None
        if lapse is None
        else Lapse(**_known(Lapse, lapse) | {"values": tuple(lapse["values"])}),
    )


def _known(kind: type, document: Document) -> Document:
    """A newer release may declare more, while both run."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in document.items() if name in names}


def _pointer(error: jsonschema_rs.ValidationError) -> str:
    """RFC 6901 pointer to the field at fault; a missing field is pointed at itself."""
    path = [str(part) for part in error.instance_path]
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        path.append(str(error.kind.property).strip('"'))
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
