"""Workflow definitions: data that says which steps a run takes.

Keeps secret how a definition is written down and what can be wrong with one. A definition is
a chain of steps; each step does one thing, named by the key that it has (`task`, `condition`,
`switch`, `parallel`, `map`, `delay`, `callback`, `workflow`). After a step comes its `next`, or
else the following one of its chain; `end` ends the chain. Steps inside `parallel` and `map` are
chains of their own, and all ids of a definition differ.

Pure. `docs/workflows.md` is the reference for those who write definitions.
"""

import datetime as dt
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal
from zoneinfo import available_timezones

import yaml
from cronsim import CronSim, CronSimError
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from orchestrator.errors import Invalid, said_of
from orchestrator.expressions import BadExpression, is_expression, names_of
from orchestrator.tasks import Document

MAX_STEPS: Final = 2_000
MAX_NESTING: Final = 5
MAX_BYTES: Final = 512 * 1024
END: Final = "end"
EVENTS: Final = ("quote_created", "conversation_idle", "message_received")

StepId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Capability = Annotated[str, Field(min_length=1, max_length=100)]
Expression = Annotated[str, Field(min_length=1, max_length=500)]
Duration = Annotated[
    str, Field(pattern=r"^(?:\d{1,6}(?:\.\d{1,3})?)(?:ms|s|m|h|d)$", description="90s, 5m, 2h, 3d")
]
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MACRO_NAME = re.compile(r"\.(?:map|filter|all|exists|exists_one)\s*\(\s*([A-Za-z_]\w*)")
# What expressions can be over, at the root.
ROOTS: Final = frozenset({"input", "data", "steps", "run", "item", "index", "now"})


def seconds(duration: str) -> float:
    """What a duration such as "90s" or "3d" is in seconds."""
    unit = duration.lstrip("0123456789.")
    return float(duration.removesuffix(unit)) * _SECONDS[unit]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Goto(_Model):
    """Go on at another step of the same chain."""

    goto: StepId


OnFailure = Literal["fail", "continue", "compensate"] | Goto


class Retries(_Model):
    """Further tries of a step, beyond those that a task has of its own: `backoff` before the
    first, times `factor` for each further one, `longest` at most."""

    times: int = Field(ge=1, le=100)
    backoff: Duration = "1s"
    factor: float = Field(2.0, ge=1, le=10)
    longest: Duration = "1h"


class Asked(_Model):
    """A task to be submitted; values of the payload that begin with "=" are expressions."""

    task: Annotated[str, Field(min_length=1, max_length=100)]
    payload: dict[str, Any] = Field(default_factory=dict)
    capabilities: list[Capability] = Field(default_factory=list, max_length=20)
    prefers: list[Capability] = Field(default_factory=list, max_length=20)
    agent: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    priority: Literal["critical", "high", "normal", "low"] = "normal"
    strategy: Literal["round_robin", "least_busy", "capability_match", "balanced"] | None = None
    timeout: Duration | None = None


class _Step(_Model):
    id: StepId
    next: StepId | None = None
    kind: ClassVar[str]


class TaskStep(_Step, Asked):
    """A task of some agent. `result` names it in `data`."""

    kind = "task"
    retries: Retries | None = None
    result: Name | None = None
    on_failure: OnFailure = "fail"
    compensate: Asked | None = None


class ConditionStep(_Step):
    """Goes to `then` where the expression is true, else to `else`; by default to the next."""

    kind = "condition"
    condition: Expression
    then: StepId | None = None
    otherwise: StepId | None = Field(None, alias="else")
    missing: Literal["false", "error"] | None = None


class Case(_Model):
    """One branch of a switch."""

    when: Expression
    then: StepId


class SwitchStep(_Step):
    """Goes to the first case that is true, else to `default`; by default to the next."""

    kind = "switch"
    switch: list[Case] = Field(min_length=1, max_length=100)
    default: StepId | None = None
    missing: Literal["false", "error"] | None = None


class _Joining(_Step):
    """`join` is how many chains must succeed; `losers` what becomes of the others then."""

    join: Literal["all", "any"] | Annotated[int, Field(ge=1, le=MAX_STEPS)] = "all"
    losers: Literal["cancel", "finish"] = "cancel"
    on_failure: OnFailure = "fail"

    def needed(self, of: int) -> int:
        """How many of that many chains must succeed."""
        return {"all": of, "any": min(1, of)}.get(str(self.join)) or min(int(self.join), of)


class ParallelStep(_Joining):
    """Chains that run at once."""

    kind = "parallel"
    parallel: dict[Name, "list[Step]"] = Field(min_length=1, max_length=100)


class MapStep(_Joining):
    """A chain for each entry of a list, `limit` at once; expressions in it have `item` and
    `index`. `result` names the list of what the chains' last tasks resulted in."""

    kind = "map"
    map: Expression
    steps: "list[Step]" = Field(min_length=1, max_length=MAX_STEPS)
    limit: int = Field(10, ge=1, le=1000)
    result: Name | None = None

    def needed(self, of: int) -> int:
        return 0 if of == 0 else super().needed(of)


class Wait(_Model):
    """For a duration; until a time ("09:30", or an expression that gives one); or until the
    business is open. Times of day are in the business's zone, or in `zone`."""

    duration: Duration | None = Field(None, alias="for")
    until: str | None = Field(None, max_length=500)
    working: Literal[True] | None = None
    zone: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Wait":
        if sum(each is not None for each in (self.duration, self.until, self.working)) != 1:
            raise ValueError("needs one of: for, until, working")
        if self.zone is not None and self.zone not in available_timezones():
            raise ValueError("zone is not a time zone such as America/Montevideo")
        clock = r"([01]\d|2[0-3]):[0-5]\d"
        expression = is_expression(self.until)
        if self.until is not None and not expression and not re.fullmatch(clock, self.until):
            raise ValueError('until must be a time such as "09:30", or "=" and an expression')
        return self


class DelayStep(_Step):
    """Waits, without holding anything."""

    kind = "delay"
    delay: Wait


class Call(_Model):
    """A webhook to call out by; its body is sent with the URL to call back."""

    url: Annotated[str, Field(min_length=8, max_length=2_000)]
    body: dict[str, Any] = Field(default_factory=dict)


class CallbackStep(_Step):
    """Waits for an event from outside: a call to the run's URL for this name, or (`session`,
    an expression) the next message of a customer, which with `takes` is the run's to answer.
    Once it waits, it may call out or `ask` by a task. Past `timeout` it goes to `on_timeout`."""

    kind = "callback"
    callback: Name
    session: Expression | None = None
    takes: bool = False
    call: Call | None = None
    ask: Asked | None = None
    timeout: Duration | None = None
    on_timeout: StepId | None = None
    result: Name | None = None
    on_failure: OnFailure = "fail"

    @model_validator(mode="after")
    def _fits(self) -> "CallbackStep":
        if self.takes and self.session is None:
            raise ValueError("takes is of a session's next message")
        if self.call is not None and self.ask is not None:
            raise ValueError("either calls out or asks")
        return self

    @property
    def asks(self) -> bool:
        """It has a task of its own: what it calls out or asks by."""
        return self.call is not None or self.ask is not None


class WorkflowStep(_Step):
    """Another workflow, as a step; its output is the result."""

    kind = "workflow"
    workflow: Name
    input: dict[str, Any] = Field(default_factory=dict)
    result: Name | None = None
    on_failure: OnFailure = "fail"


_KINDS: Final[dict[str, type[_Step]]] = {
    each.kind: each
    for each in (
        TaskStep, ConditionStep, SwitchStep, ParallelStep, MapStep, DelayStep, CallbackStep,
        WorkflowStep,
    )
}  # fmt: skip


def _kind(value: Any) -> str:
    """Which step it is: `task` last, since it is the one that others do not have."""
    if isinstance(value, _Step):
        return value.kind
    keys = value.keys() if isinstance(value, Mapping) else ()
    return next((kind for kind in _KINDS if kind in keys), "task")


Step = Annotated[
    Annotated[TaskStep, Tag("task")]
    | Annotated[ConditionStep, Tag("condition")]
    | Annotated[SwitchStep, Tag("switch")]
    | Annotated[ParallelStep, Tag("parallel")]
    | Annotated[MapStep, Tag("map")]
    | Annotated[DelayStep, Tag("delay")]
    | Annotated[CallbackStep, Tag("callback")]
    | Annotated[WorkflowStep, Tag("workflow")],
    Discriminator(_kind),
]


class OnEvent(_Model):
    """Starts a run for each event of a kind; expressions have `event`. `after` is how long a
    conversation has to be silent to be idle."""

    event: Literal["quote_created", "conversation_idle", "message_received"]
    after: Duration = "24h"
    when: Expression | None = None
    input: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_silence(self) -> "OnEvent":
        if "after" in self.model_fields_set and self.event != "conversation_idle":
            raise ValueError("after is of conversation_idle only")
        return self


class OnSchedule(_Model):
    """Starts a run at the times of a cron expression, in the business's zone or in `zone`;
    expressions have `now`."""

    cron: Annotated[str, Field(max_length=100)]
    zone: str | None = None
    input: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times(self) -> "OnSchedule":
        try:
            CronSim(self.cron, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        except CronSimError:
            raise ValueError(
                'cron must be five fields such as "0 9 * * 1-5", of a time that comes'
            ) from None
        if self.zone is not None and self.zone not in available_timezones():
            raise ValueError("zone is not a time zone such as America/Montevideo")
        return self


def _start(value: Any) -> str:
    schedule = isinstance(value, OnSchedule) or (isinstance(value, Mapping) and "cron" in value)
    return "OnSchedule" if schedule else "OnEvent"


Start = Annotated[
    Annotated[OnEvent, Tag("OnEvent")] | Annotated[OnSchedule, Tag("OnSchedule")],
    Discriminator(_start),
]


class Workflow(_Model):
    """A definition as it is written."""

    id: Name
    name: str = Field("", max_length=200)
    description: str = Field("", max_length=2_000)
    needs: list[Name] = Field(default_factory=list, max_length=100)
    on: list[Start] = Field(default_factory=list, max_length=20)
    missing: Literal["false", "error"] = "error"
    steps: list[Step] = Field(min_length=1, max_length=MAX_STEPS)
    output: dict[str, Any] = Field(default_factory=dict)


MapStep.model_rebuild()
ParallelStep.model_rebuild()
Workflow.model_rebuild()


# --- What is wrong with one ---------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a definition. `line` counts from 1; None where there are no lines."""

    pointer: str
    line: int | None
    problem: str


class DefinitionInvalid(Invalid):
    """A workflow definition cannot be run; the faults say where and why.

    Facts: `errors`, a list of {pointer, detail, line}. `lines` are for people, one for each.
    """

    code = "invalid_workflow"
    title = "The workflow definition is not valid"

    def __init__(self, source: str, faults: Iterable[Fault]) -> None:
        located = [(source, each) for each in faults]
        self._tell(located)

    @classmethod
    def of(cls, several: Iterable["DefinitionInvalid"]) -> "DefinitionInvalid":
        """What is wrong in several definitions, as one."""
        made = cls("", ())
        made._tell([each for invalid in several for each in invalid.located])
        return made

    def _tell(self, located: list[tuple[str, Fault]]) -> None:
        self.located = located
        self.faults = tuple(fault for _, fault in located)
        self.lines = [
            f"{source}{'' if each.line is None else f':{each.line}'}: {each.pointer or '/'}: "
            f"{each.problem}"
            for source, each in located
        ]
        errors = [
            {"pointer": each.pointer, "detail": each.problem}
            | ({} if each.line is None else {"line": each.line})
            for each in self.faults
        ]
        super().__init__("; ".join(self.lines[:20]), errors=errors[:100])

    def __str__(self) -> str:
        return self.detail


_Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """A step of a definition: its chain, what follows it there, and what it is inside of."""

    step: Any
    where: _Where
    following: str | None
    chain: str  # of the whole definition: ""; else "{step}" of a map, "{step}.{branch}"


@dataclass(frozen=True)
class Definition:
    """A checked definition, with its steps by id."""

    workflow: Workflow
    version: int = 0
    # What it was read from, and where in it its parts are.
    source: str = field(default="definition", compare=False)
    lines: Mapping[_Where, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def id(self) -> str:
        return self.workflow.id

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Step id -> place."""
        return {place.step.id: place for place in _places(self.workflow.steps, ("steps",), "")}

    def step(self, step_id: str) -> Any:
        """A step by its id."""
        return self.places[step_id].step

    @cached_property
    def chains(self) -> Mapping[str, str]:
        """Chain -> its first step."""
        firsts: dict[str, str] = {}
        for place in self.places.values():
            firsts.setdefault(place.chain, place.step.id)
        return firsts

    def after(self, step_id: str) -> str | None:
        """The step that comes after one; None at the end of its chain."""
        place = self.places[step_id]
        return _target(place.step.next, place)

    def to_document(self) -> Document:
        """As it is stored and shown."""
        return self.workflow.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def fault(self, where: _Where, problem: str) -> Fault:
        """Something wrong at a place of it."""
        return _fault(self.lines, where, problem)

    def fingerprint(self) -> str:
        """Equal for equal definitions."""
        text = json.dumps(self.to_document(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _target(named: str | None, place: Place) -> str | None:
    if named == END:
        return None
    return named or place.following


def _places(steps: list[Any], where: _Where, chain: str) -> Iterator[Place]:
    for at, step in enumerate(steps):
        following = steps[at + 1].id if at + 1 < len(steps) else None
        yield Place(step, (*where, at), following, chain)
        if isinstance(step, ParallelStep):
            for name, branch in step.parallel.items():
                yield from _places(branch, (*where, at, "parallel", name), f"{step.id}.{name}")
        elif isinstance(step, MapStep):
            yield from _places(step.steps, (*where, at, "steps"), step.id)


def targets(place: Place) -> dict[str, str | None]:
    """Where a step can lead to, by the name of the way; None is the end of its chain."""
    step = place.step
    ways: dict[str, str | None] = {}
    if isinstance(step, ConditionStep):
        ways["then"] = _target(step.then or step.next, place)
        ways["else"] = _target(step.otherwise or step.next, place)
    elif isinstance(step, SwitchStep):
        for at, case in enumerate(step.switch):
            ways[f"case {at + 1}"] = _target(case.then, place)
        ways["default"] = _target(step.default or step.next, place)
    else:
        ways["next"] = _target(step.next, place)
    if isinstance(step, CallbackStep) and step.on_timeout is not None:
        ways["timeout"] = _target(step.on_timeout, place)
    on_failure = getattr(step, "on_failure", None)
    if isinstance(on_failure, Goto):
        ways["failure"] = _target(on_failure.goto, place)
    return ways


def load(path: Path) -> Definition:
    """Read and check a definition from a YAML file.

    Raises:
        DefinitionInvalid: everything that is wrong, each with file and line.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise _too_large(str(path))
    return parse(path.read_bytes(), str(path))


def load_folder(folder: Path) -> list[Definition]:
    """Read and check the definitions of a folder: its `*.yaml` and `*.yml`, by name.

    Raises:
        DefinitionInvalid: everything that is wrong in any of them, each with file and line; two
            of one id are wrong too.
        OSError: one cannot be read.
    """
    found: dict[str, Definition] = {}
    wrong: list[DefinitionInvalid] = []
    for path in sorted(each for each in folder.iterdir() if each.suffix in (".yaml", ".yml")):
        try:
            definition = load(path)
            if definition.id in found:
                fault = definition.fault(("id",), f"{definition.id!r} is taken by another file")
                raise DefinitionInvalid(str(path), [fault])
            found[definition.id] = definition
        except DefinitionInvalid as invalid:
            wrong.append(invalid)
    if wrong:
        raise DefinitionInvalid.of(wrong)
    return list(found.values())


def _too_large(source: str) -> DefinitionInvalid:
    return DefinitionInvalid(source, [Fault("", None, f"is larger than {MAX_BYTES} bytes")])


def parse(text: str | bytes, source: str) -> Definition:
    """Read and check a definition in YAML; `source` names it in errors.

    Raises:
        DefinitionInvalid: everything that is wrong, each with its line.
    """
    lines: dict[_Where, int] = {}
    if len(text) > MAX_BYTES:
        raise _too_large(source)
    try:
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            document = None if node is None else _tree(loader, node, (), lines)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "unreadable"
        fault = Fault("", mark.line + 1 if mark else None, f"is not YAML: {problem}")
        raise DefinitionInvalid(source, [fault]) from None
    return check(document, source, lines)


def written(definition: Definition) -> str:
    """A definition in YAML; `parse` reads the same from it."""
    return yaml.safe_dump(definition.to_document(), sort_keys=False, allow_unicode=True, width=100)


def _tree(loader: Any, node: yaml.Node, where: _Where, lines: dict[_Where, int]) -> Any:
    lines.setdefault(where, node.start_mark.line + 1)
    if len(where) > 8 * MAX_NESTING or len(lines) > 100_000:
        raise yaml.MarkedYAMLError(problem="nests too deep", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            # YAML 1.1 takes a bare `on` for true.
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            if "\0" in key:
                raise yaml.MarkedYAMLError(
                    problem="holds a name that cannot be stored", problem_mark=key_node.start_mark
                )
            if key in mapping:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is written twice", problem_mark=key_node.start_mark
                )
            lines[(*where, key)] = key_node.start_mark.line + 1
            mapping[key] = _tree(loader, value_node, (*where, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_tree(loader, each, (*where, at), lines) for at, each in enumerate(node.value)]
    return _scalar(loader.construct_object(node), node)


def _scalar(value: Any, node: yaml.Node) -> Any:
    """A value as JSON has it, and the store keeps it."""
    problem = None
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        problem = "is binary"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        problem = "is an integer beyond 64 bits"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "is no number"
    if problem is not None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return value


def check(
    document: Any, source: str = "definition", lines: Mapping[_Where, int] | None = None
) -> Definition:
    """Check a definition that was read already.

    Raises:
        DefinitionInvalid: everything that is wrong.
    """
    fault = partial(_fault, lines or {})
    if _deep(document):
        raise DefinitionInvalid(source, [fault((), "nests too deep")])
    try:
        workflow = Workflow.model_validate(document)
    except ValidationError as error:
        raise DefinitionInvalid(
            source,
            [
                fault(_bare(problem["loc"]), said_of(problem))
                for problem in error.errors(include_url=False, include_input=False)
            ],
        ) from None
    definition = Definition(workflow, source=source, lines=lines or {})
    faults = [fault(where, problem) for where, problem in _faults(definition)]
    if faults:
        raise DefinitionInvalid(source, faults)
    return definition


def _fault(lines: Mapping[_Where, int], where: _Where, problem: str) -> Fault:
    around = (where[:length] for length in range(len(where), -1, -1))
    line = next((lines[place] for place in around if place in lines), None)
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in where)
    return Fault(pointer, line, problem)


def _deep(document: Any) -> bool:
    """Whether it nests beyond what any definition needs; without recursion."""
    left = [(document, 0)]
    while left:
        value, depth = left.pop()
        if depth > 12 * MAX_NESTING:
            return True
        if isinstance(value, dict):
            left += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            left += [(each, depth + 1) for each in value]
    return False


def _bare(loc: tuple[str | int, ...]) -> _Where:
    """A pydantic location without the names of union members."""
    names = {*_KINDS, "OnEvent", "OnSchedule", "Goto"}
    bare: list[str | int] = []
    for at, part in enumerate(loc):
        tag = part in names and at > 0 and isinstance(loc[at - 1], int)
        literal = isinstance(part, str) and part.startswith(
            ("literal[", "constrained-", "function-")
        )
        if not tag and not literal and part != "Goto":
            bare.append(part)
    return tuple(bare)


def _faults(definition: Definition) -> Iterator[tuple[_Where, str]]:
    """All that the shape alone does not tell."""
    places = list(_places(definition.workflow.steps, ("steps",), ""))
    if len(places) > MAX_STEPS:
        yield ("steps",), f"has more than {MAX_STEPS} steps"
        return
    seen: dict[str, Place] = {}
    chains: dict[str, list[Place]] = {}
    for place in places:
        if place.step.id in seen or place.step.id == END:
            yield (*place.where, "id"), f"{place.step.id!r} is taken already"
        seen[place.step.id] = place
        chains.setdefault(place.chain, []).append(place)
        if sum(part == "parallel" or part == "steps" for part in place.where) > MAX_NESTING:
            yield place.where, f"nests deeper than {MAX_NESTING} levels"
        yield from _bad_expressions(place)
    for chain in chains.values():
        yield from _ways(chain)
    for name, each in definition.workflow.output.items():
        for where, expression in _expressions_in(each, ("output", name)):
            yield from _bad(expression, where, ROOTS - {"item", "index"})
    for at, start in enumerate(definition.workflow.on):
        if isinstance(start, OnEvent) and start.when is not None:
            yield from _bad(start.when, ("on", at, "when"), frozenset({"event"}))
        roots = frozenset({"event"} if isinstance(start, OnEvent) else {"now"})
        for where, expression in _expressions_in(start.input, ("on", at, "input")):
            yield from _bad(expression, where, roots)


def _ways(chain: list[Place]) -> Iterator[tuple[_Where, str]]:
    """Unknown steps, unreachable ones, and circles without a wait, of one chain."""
    ids = {place.step.id: place for place in chain}
    ways: dict[str, set[str]] = {}
    for place in chain:
        ways[place.step.id] = set()
        for way, target in targets(place).items():
            if target is None:
                continue
            if target not in ids:
                yield place.where, f"{way} leads to {target!r}, which is no step of its chain"
            else:
                ways[place.step.id].add(target)
    reached: set[str] = set()
    left = [chain[0].step.id]
    while left:
        at = left.pop()
        if at not in reached:
            reached.add(at)
            left += ways[at]
    for place in chain:
        if place.step.id not in reached:
            yield place.where, f"{place.step.id!r} cannot be reached"
    # A circle all of whose steps end by themselves would go round as fast as it can.
    prompt = {
        name: {to for to in after if not _waits(ids[to])}
        for name, after in ways.items()
        if not _waits(ids[name])
    }
    for name in _circular(prompt):
        yield ids[name].where, f"{name!r} is on a circle without a delay"


def _waits(place: Place) -> bool:
    return isinstance(place.step, DelayStep | CallbackStep)


def _circular(ways: Mapping[str, set[str]]) -> list[str]:
    """The nodes that are left when all that leads nowhere is taken away, again and again, from
    both ends: those on circles, and between them."""
    left = {name: set(after) for name, after in ways.items()}
    while True:
        targets_left = {to for after in left.values() for to in after}
        kept = {name for name, after in left.items() if after and name in targets_left}
        if len(kept) == len(left):
            return [name for name in ways if name in kept]
        left = {name: {to for to in left[name] if to in kept} for name in kept}


def _bad_expressions(place: Place) -> Iterator[tuple[_Where, str]]:
    step, where = place.step, place.where
    in_map = any(part == "steps" for part in where[1:])
    roots = ROOTS if in_map else ROOTS - {"item", "index"}
    for name in ("condition", "map", "session"):
        value = getattr(step, name, None)
        if isinstance(value, str):
            yield from _bad(value, (*where, name), roots)
    if isinstance(step, SwitchStep):
        for at, case in enumerate(step.switch):
            yield from _bad(case.when, (*where, "switch", at, "when"), roots)
    if isinstance(step, DelayStep) and is_expression(step.delay.until):
        yield from _bad(str(step.delay.until)[1:], (*where, "delay", "until"), roots)
    for name, value in (
        ("payload", getattr(step, "payload", None)),
        ("input", getattr(step, "input", None)),
        ("call", step.call.model_dump() if getattr(step, "call", None) else None),
        *(
            (name, {"payload": inner.payload})
            for name in ("compensate", "ask")
            if (inner := getattr(step, name, None)) is not None
        ),
    ):
        for place_of, expression in _expressions_in(value, (*where, name)):
            yield from _bad(expression, place_of, roots)


def _expressions_in(value: Any, where: _Where) -> Iterator[tuple[_Where, str]]:
    if is_expression(value) and not value.startswith("=="):
        yield where, value[1:]
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _expressions_in(each, (*where, name))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from _expressions_in(each, (*where, at))


def _bad(expression: str, where: _Where, roots: frozenset[str]) -> Iterator[tuple[_Where, str]]:
    try:
        unknown = names_of(expression) - roots - set(_MACRO_NAME.findall(expression))
    except BadExpression as error:
        yield where, error.detail
        return
    if unknown:
        yield (
            where,
            f"There is no {sorted(unknown)[0]!r}: expressions have {', '.join(sorted(roots))}.",
        )
