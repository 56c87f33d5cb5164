"""The parts put together: what a process of this system opens at its start."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pymongo.database import Database

from orchestrator.admission import Admission
from orchestrator.audit import Audit
from orchestrator.broker import Publisher
from orchestrator.clock import Clock
from orchestrator.contacts import Contacts
from orchestrator.context import Sessions
from orchestrator.coordinator import Coordinator
from orchestrator.customers import Customers
from orchestrator.dead_letters import DeadLetters
from orchestrator.declarations import Agent, DeclarationStore
from orchestrator.definition_store import DefinitionStore
from orchestrator.definitions import DefinitionInvalid, load_folder
from orchestrator.events import Events
from orchestrator.files import Files
from orchestrator.keys import SigningKey
from orchestrator.logs import log
from orchestrator.metrics import Metrics, StoreWatch
from orchestrator.outbox import Outbox
from orchestrator.people import People
from orchestrator.registry import Registry, open_redis
from orchestrator.replies import SWEEP_S, Replies
from orchestrator.rescue import Rescuer
from orchestrator.resources import Resources
from orchestrator.responses import Responses
from orchestrator.router import Router
from orchestrator.service import Service
from orchestrator.settings import Settings
from orchestrator.tasks import Document, TaskStore, open_database
from orchestrator.timers import Timers
from orchestrator.triggers import Triggers
from orchestrator.workflows import Workflows


class Engine:
    """One per process, opened after any fork; opening connects to nothing yet.

    `clock` is for who plays with time; without it there is one of its own.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.metrics = Metrics()
        self.database: Database[Document] = open_database(settings, StoreWatch(self.metrics))
        self.redis = open_redis(settings)
        self.store = TaskStore(self.database, self.clock, settings)
        self.sessions = Sessions(self.database, self.clock, self.store, settings)
        self.declarations = DeclarationStore(self.database, settings.declarations_refresh_s)
        self.resources = Resources(self.database, self.declarations, self.clock)
        self.files = Files(self.database, self.clock)
        self.registry = Registry(self.redis, settings)
        self.router = Router(self.declarations, self.registry, settings)
        self.admission = Admission(self.store, self.router, settings)
        self.publisher = Publisher(settings)
        marks = SigningKey(self.database, "announcements")
        self.replies = Replies(self.redis, self.store, marks, settings)
        self.events = Events(self.database, self.store, self.sessions, self.replies, SWEEP_S)
        self.coordinator = Coordinator(
            self.store,
            self.declarations,
            self.router,
            self.publisher,
            self.replies,
            self.metrics,
            settings,
        )
        self.audit = Audit(self.database, self.clock, settings)
        self.contacts = Contacts(self.database, self.clock)
        self.outbox = Outbox(
            self.database,
            self.clock,
            settings,
            self.sessions,
            self.contacts,
            self.coordinator,
            self.audit,
        )
        self.people = People(self.sessions, self.outbox, self.replies)
        self.responses = Responses(self.database, self.clock, settings)
        self.timers = Timers(self.database, self.clock, self.coordinator)
        self.definitions = DefinitionStore(
            self.database, self.clock, self.declarations, self.timers, settings
        )
        self.workflows = Workflows(
            self.database,
            self.clock,
            self.store,
            self.definitions,
            self.coordinator,
            self.metrics,
            settings,
        )
        self.triggers = Triggers(
            self.database, self.clock, self.definitions, self.workflows, self.sessions
        )
        self.coordinator.advance_run = self.workflows.advance
        self.dead_letters = DeadLetters(self.store, self.coordinator, self.sessions, self.audit)
        self.customers = Customers(
            self.database,
            self.clock,
            self.store,
            self.coordinator,
            self.declarations,
            self.contacts,
            self.audit,
            self.workflows,
            settings,
        )
        self.service = Service(
            self.database,
            self.redis,
            self.store,
            self.declarations,
            self.registry,
            self.router,
            self.clock,
            settings,
        )

    def rescuer(self, holder: str, *, eager: bool) -> Rescuer:
        """A rescuer that takes the lock under this name."""
        return Rescuer(
            self.database,
            self.clock,
            self.store,
            self.coordinator,
            self.publisher,
            self.registry,
            self.router,
            self.outbox,
            self.workflows,
            self.triggers,
            self.timers,
            self.customers,
            self.sessions,
            self.settings,
            holder=holder,
            eager=eager,
        )

    def init(self, agents: Sequence[Agent]) -> list[str]:
        """Make indexes, write the agents' declarations, run their set-up, keep the workflows of
        their folders and of the settings'. Repeatable.

        Returns what these workflows ask for that nobody declares yet, a line for each: agents
        start one by one, and what a later one declares is not known to the first.

        Raises:
            DefinitionInvalid: a workflow in a folder is wrong.
            StoreUnavailable: MongoDB does not answer.
        """
        self.store.read_clock()
        self.store.ensure_indexes()
        self.sessions.ensure_indexes()
        self.outbox.ensure_indexes()
        self.responses.ensure_indexes()
        self.audit.ensure_indexes()
        self.timers.ensure_indexes()
        self.definitions.ensure_indexes()
        self.workflows.ensure_indexes()
        for agent in agents:
            if agent.setup is not None:
                agent.setup(self)
            self.declarations.declare(agent.declaration(self.settings))
        self.customers.ensure_indexes()
        folders = {
            f"agents/{agent.role}": agent.workflows
            for agent in agents
            if agent.workflows is not None
        }
        if self.settings.workflows_dir is not None:
            folders["WORKFLOWS_DIR"] = self.settings.workflows_dir
        return self._keep_workflows(folders)

    def _keep_workflows(self, folders: Mapping[str, Path]) -> list[str]:
        brought = {by: load_folder(folder) for by, folder in folders.items()}
        beside = {each.id for several in brought.values() for each in several}
        unstaffed: list[str] = []
        for by, several in brought.items():
            for definition in several:
                try:
                    self.definitions.check_declared(definition, definition.source, beside)
                except DefinitionInvalid as error:
                    log.info("workflow.not_staffed_yet", workflow=definition.id, code=error.code)
                    unstaffed += error.lines
                self.definitions.put_from_folder(definition, by)
        return unstaffed

    def close(self) -> None:
        """Close connections."""
        self.coordinator.close()
        self.outbox.close()
        self.events.stop()
        self.replies.stop()
        self.redis.close()
        self.database.client.close()


def installed_version() -> str:
    """The version of this package, as it was installed."""
    try:
        return version("agent-orchestrator")
    except PackageNotFoundError:
        return "unknown"
