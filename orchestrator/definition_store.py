"""Workflow definitions as they are kept: every version, for the runs that began with it.

Keeps secret how versions are numbered and found, and that a definition's schedules are timers.

Collection `workflows`, one document per version of a definition, never deleted while runs
need it:

    _id          "{workflow}@{version}"
    workflow, version
    definition   as it was written
    fingerprint  hash of it
    by, created_at

Written by this module only.
"""

import json
from collections.abc import Collection
from typing import Final

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.declarations import DeclarationStore
from orchestrator.definitions import (
    Asked,
    Definition,
    DefinitionInvalid,
    OnSchedule,
    TaskStep,
    WorkflowStep,
    check,
)
from orchestrator.errors import NoCapableAgent, NotFound
from orchestrator.logs import log
from orchestrator.settings import Settings
from orchestrator.tasks import Document, Request, ensure_index, store_errors
from orchestrator.timers import Timers

# The task type that a schedule's timer asks for: the orchestrator agent starts the run.
START: Final = "start_workflow"
KNOWN_S: Final = 2.0


class WorkflowNotFound(NotFound):
    """No workflow, or no version of it, has this id."""

    code = "workflow_not_found"
    title = "No such workflow"


class DefinitionStore:
    """One per process. Raises StoreUnavailable as the task store does."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        declarations: DeclarationStore,
        timers: Timers,
        settings: Settings,
    ) -> None:
        self._definitions = database["workflows"]
        self._clock = clock
        self._declarations = declarations
        self._timers = timers
        self._settings = settings
        self._known: dict[tuple[str, int], Definition] = {}
        self._newest: list[Definition] = []
        self._newest_at = float("-inf")

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._definitions, "versions", "workflow version", unique=True)

    def put(self, definition: Definition, by: str) -> Definition:
        """Keep a definition as the newest version of its workflow; runs keep theirs.

        One that is as the newest version is, is that version.
        """
        while True:
            newest = self._newest_of(definition.id)
            if newest is not None and newest.fingerprint() == definition.fingerprint():
                kept = newest
                break
            version = 1 if newest is None else newest.version + 1
            document = {
                "_id": f"{definition.id}@{version}",
                "workflow": definition.id,
                "version": version,
                "definition": definition.to_document(),
                "fingerprint": definition.fingerprint(),
                "by": by,
                "created_at": self._clock.now(),
            }
            try:
                with store_errors():
                    self._definitions.insert_one(document)
            except DuplicateKeyError:
                continue
            log.info("workflow.stored", workflow=definition.id, version=version, by=by)
            kept = Definition(definition.workflow, version)
            break
        self._schedule(kept)
        self._newest_at = float("-inf")
        return kept

    def put_from_folder(self, definition: Definition, by: str) -> Definition:
        """Keep a definition that a folder brings, named by `by`, at each start.

        One that is as it came from there the last time changes nothing, so that what somebody
        has put over it since then stands.
        """
        with store_errors():
            known = list(
                self._definitions.find(
                    {"workflow": definition.id}, {"version": 1, "by": 1, "fingerprint": 1}
                )
            )
        brought = [each for each in known if each["by"] == by]
        last = max(brought, key=lambda each: int(each["version"]), default=None)
        if last is None or last["fingerprint"] != definition.fingerprint():
            return self.put(definition, by)
        newest = self.get(definition.id)
        self._schedule(newest)
        return newest

    def check_declared(
        self, definition: Definition, source: str = "definition", beside: Collection[str] = ()
    ) -> None:
        """See that some agent declares every task that a definition asks for, and that the
        workflows that are steps of it are known, or among those `beside` it.

        Raises:
            DefinitionInvalid: one is declared by nobody, or not with these capabilities; or
                there is no such workflow.
        """
        faults = []
        for place in definition.places.values():
            step = place.step
            if isinstance(step, WorkflowStep):
                inside = step.workflow
                if inside not in (*beside, definition.id) and self._newest_of(inside) is None:
                    problem = f"there is no workflow {inside!r}"
                    faults.append(definition.fault((*place.where, "workflow"), problem))
            asked: dict[tuple[str, ...], Asked | None] = {
                ("task",): step if isinstance(step, TaskStep) else None,
                ("compensate", "task"): getattr(step, "compensate", None),
                ("ask", "task"): getattr(step, "ask", None),
            }
            for inner, each in asked.items():
                if each is None:
                    continue
                try:
                    self._capable(each)
                except NoCapableAgent as error:
                    wanted = ", ".join(each.capabilities) or "what it needs"
                    by = f" of {each.agent}" if each.agent else ""
                    problem = f"no agent{by} declares the task {each.task!r} with {wanted}"
                    faults.append(definition.fault((*place.where, *inner), problem))
                    log.debug("workflow.unstaffed", code=error.code)
        if faults:
            raise DefinitionInvalid(source, faults)

    def _capable(self, asked: Asked) -> None:
        capable = self._declarations.capable(asked.task, asked.capabilities)
        if asked.agent and asked.agent not in {agent.agent_id for agent in capable}:
            raise NoCapableAgent(agent=asked.agent)

    def get(self, workflow: str, version: int | None = None) -> Definition:
        """A definition; without a version the newest.

        Raises:
            WorkflowNotFound: there is none.
        """
        if version is None:
            newest = self._newest_of(workflow)
            if newest is None:
                raise WorkflowNotFound(workflow=workflow[:100])
            return newest
        known = self._known.get((workflow, version))
        if known is None:
            with store_errors():
                document = self._definitions.find_one({"_id": f"{workflow}@{version}"})
            if document is None:
                raise WorkflowNotFound(workflow=workflow[:100], version=version)
            known = self._read(document)
        return known

    def versions(self, workflow: str) -> list[Document]:
        """{version, by, created_at} of each version, the newest first.

        Raises:
            WorkflowNotFound: there is none.
        """
        with store_errors():
            found = list(self._definitions.find({"workflow": workflow}, {"definition": 0}))
        if not found:
            raise WorkflowNotFound(workflow=workflow[:100])
        return [
            {name: each[name] for name in ("version", "by", "created_at")}
            for each in sorted(found, key=lambda each: -int(each["version"]))
        ]

    def all(self) -> list[Definition]:
        """The newest version of every workflow, by id; at most two seconds old."""
        if self._clock.monotonic() - self._newest_at > KNOWN_S:
            newest: dict[str, int] = {}
            with store_errors():
                for each in self._definitions.find({}, {"workflow": 1, "version": 1}):
                    newest[each["workflow"]] = max(newest.get(each["workflow"], 0), each["version"])
            self._newest = [self.get(*each) for each in sorted(newest.items())]
            self._newest_at = self._clock.monotonic()
        return self._newest

    def _newest_of(self, workflow: str) -> Definition | None:
        with store_errors():
            found = list(self._definitions.find({"workflow": workflow}, {"version": 1}))
        if not found:
            return None
        return self.get(workflow, max(each["version"] for each in found))

    def _read(self, document: Document) -> Definition:
        workflow = check(document["definition"], document["_id"]).workflow
        definition = Definition(workflow, document["version"])
        self._known[(definition.id, definition.version)] = definition
        return definition

    def _schedule(self, definition: Definition) -> None:
        """Set the timers of a definition's schedules, and take away those it has no more."""
        prefix = f"workflow/{definition.id}/"
        wanted = set()
        for at, start in enumerate(definition.workflow.on):
            if isinstance(start, OnSchedule):
                name = f"{prefix}{at}"
                wanted.add(name)
                zone = start.zone or self._settings.business_zone
                payload = {
                    "workflow": definition.id,
                    "input": json.dumps(start.input),
                    "expressions": True,
                }
                request = Request(START, payload, caller="schedule")
                self._timers.put(name, request, cron=start.cron, zone=zone)
        for name in self._timers.names(prefix):
            if name not in wanted:
                self._timers.remove(name)
