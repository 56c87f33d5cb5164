"""Workflows as Mermaid text: a definition, or a run with its states in colour.

Pure. Texts of a definition are escaped, so that none can be more than a text in the diagram.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from orchestrator.advance import Visit, VisitState
from orchestrator.definitions import (
    CallbackStep,
    ConditionStep,
    Definition,
    DelayStep,
    MapStep,
    ParallelStep,
    Place,
    SwitchStep,
    TaskStep,
    WorkflowStep,
    targets,
)

# Dark on light, so that they read on paper too.
COLOURS: Final = {
    "completed": "fill:#d9f2e3,stroke:#1b7f4b,color:#0b3d24",
    "active": "fill:#dbe9ff,stroke:#1f5fbf,color:#0c2a57",
    "pausing": "fill:#fff1cc,stroke:#a87400,color:#4d3500",
    "failed": "fill:#fbdcdc,stroke:#b3261e,color:#5c0f0b",
    "cancelled": "fill:#e6e6e6,stroke:#6b6b6b,color:#333333",
}


def of_definition(definition: Definition) -> str:
    """A flowchart of a definition."""
    return "\n".join(["flowchart TD", *_body(definition)]) + "\n"


def of_run(definition: Definition, visits: Sequence[Visit]) -> str:
    """The same with the state of each step, and how often it was come to."""
    seen: dict[str, list[Visit]] = {}
    for visit in visits:
        if not visit.undo:
            seen.setdefault(visit.step, []).append(visit)
    lines = ["flowchart TD", *_body(definition, seen)]
    used = set()
    for step, its in seen.items():
        state = _state(its)
        used.add(state)
        lines.append(f"  class {step} {state}")
    lines += [f"  classDef {state} {COLOURS[state]}" for state in sorted(used)]
    return "\n".join(lines) + "\n"


def _state(visits: Sequence[Visit]) -> str:
    """One state for all visits of a step: what needs to be looked at most."""
    states = {visit.state for visit in visits}
    for state in (VisitState.ACTIVE, VisitState.PAUSING):
        if state in states:
            return state.value
    return visits[-1].state.value if len(states) > 1 else next(iter(states)).value


def _body(definition: Definition, seen: Mapping[str, list[Visit]] | None = None) -> Iterator[str]:
    firsts = definition.chains
    yield "  start_((start))"
    yield f"  start_ --> {firsts['']}"
    yield from _chain(definition, "", "  ", seen or {})
    yield "  end_((end))"


def _chain(
    definition: Definition, chain: str, indent: str, seen: Mapping[str, list[Visit]]
) -> Iterator[str]:
    """The nodes and edges of a chain, those inside its steps in frames."""
    for place in definition.places.values():
        if place.chain != chain:
            continue
        step = place.step
        yield f"{indent}{_node(step, seen.get(step.id, ()))}"
        if isinstance(step, ParallelStep):
            for name in step.parallel:
                yield from _frame(definition, step.id, f"{step.id}.{name}", name, indent, seen)
        elif isinstance(step, MapStep):
            label = f"for each, {step.limit} at once"
            yield from _frame(definition, step.id, step.id, label, indent, seen)
        yield from (f"{indent}{edge}" for edge in _edges(place))


def _frame(
    definition: Definition,
    outer: str,
    chain: str,
    label: str,
    indent: str,
    seen: Mapping[str, list[Visit]],
) -> Iterator[str]:
    frame = chain.replace(".", "__")
    yield f'{indent}subgraph {frame}_["{_text(label)}"]'
    yield from _chain(definition, chain, indent + "  ", seen)
    yield f"{indent}end"
    yield f"{indent}{outer} -.-> {definition.chains[chain]}"


def _edges(place: Place) -> Iterator[str]:
    ways: dict[str | None, list[str]] = {}
    for way, target in targets(place).items():
        ways.setdefault(target, []).append("" if way == "next" else way)
    for target, names in ways.items():
        if target is None and place.chain:
            continue  # the end of a branch is the frame's
        label = ", ".join(name for name in names if name)
        said = f'|"{_text(label)}"|' if label else ""
        yield f"{place.step.id} -->{said} {target or 'end_'}"


def _node(step: Any, visits: Sequence[Visit]) -> str:
    label, (opens, closes) = step.id, ("[", "]")
    if isinstance(step, TaskStep):
        label = f"{step.id}<br/>{_text(step.task)}"
    elif isinstance(step, ConditionStep):
        label, (opens, closes) = f"{step.id}<br/>{_text(step.condition)}", ("{", "}")
    elif isinstance(step, SwitchStep):
        opens, closes = "{", "}"
    elif isinstance(step, DelayStep):
        wait = step.delay
        until = "working hours" if wait.working else f"until {wait.until}"
        label = f"{step.id}<br/>{_text(wait.duration or until)}"
        opens, closes = "([", "])"
    elif isinstance(step, CallbackStep):
        label, (opens, closes) = f"{step.id}<br/>waits: {step.callback}", ("[/", "/]")
    elif isinstance(step, WorkflowStep):
        label, (opens, closes) = f"{step.id}<br/>{step.workflow}", ("[[", "]]")
    if len(visits) > 1:
        label += f"<br/>× {len(visits)}"
    return f'{step.id}{opens}"{label}"{closes}'


def _text(text: str) -> str:
    """A text that Mermaid shows as it is."""
    shown = text if len(text) <= 60 else text[:59] + "…"
    escaped = shown.replace("&", "#amp;").replace('"', "#quot;")
    for char, name in (("<", "#lt;"), (">", "#gt;"), ("\n", " "), ("`", "'")):
        escaped = escaped.replace(char, name)
    return escaped
