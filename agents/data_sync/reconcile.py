"""What to write of a row, given what both sides have and what they last agreed on; pure.

A field counts as changed on a side when it is not what both had after the last sync. Changed on
one side only, that side is right; changed on both, and differently, it is a conflict, which the
rule decides: `theirs` and `ours` by side, `newest` by time, `ask` by a person.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Record = Mapping[str, Any]
Rule = Literal["theirs", "ours", "newest", "ask"]
Outcome = Literal["inserted", "updated", "unchanged", "kept", "asked"]
Winner = Literal["source", "target"]


@dataclass(frozen=True)
class Decision:
    """What becomes of a row.

    `write` are the fields to be put under its key; `agreed` is what both sides have agreed on
    once that is done; `disputed` are the fields of a conflict, and `winner` who won it, None
    where a person has to say.
    """

    outcome: Outcome
    write: dict[str, Any]
    agreed: dict[str, Any]
    disputed: tuple[str, ...] = ()
    winner: Winner | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def decide(
    source: Record,
    target: Record | None,
    agreed: Record | None,
    *,
    rule: Rule,
    source_is_ours: bool,
    source_at: dt.datetime | None = None,
    target_at: dt.datetime | None = None,
) -> Decision:
    """Decide a row that the source has. What it leaves out stays as it is.

    A row that the target has lost since stays lost while the source's stays as it was.
    """
    known = dict(agreed or {})
    if target is None:
        if agreed is None:
            return Decision("inserted", dict(source), dict(source))
        if all(known.get(name) == value for name, value in source.items()):
            return Decision("kept", {}, known)
        write: dict[str, Any] = {}
        disputed = tuple(source)
    else:
        differing = [name for name, value in source.items() if target.get(name) != value]
        if not differing:
            return Decision("unchanged", {}, known | dict(source))
        disputed = tuple(
            name
            for name in differing
            if name not in known or known[name] not in (source[name], target.get(name))
        )
        write = {
            name: source[name]
            for name in differing
            if name in known and known[name] == target.get(name)
        }
    if not disputed:
        return Decision("updated" if write else "kept", write, known | dict(source))
    winner = _winner(rule, source_is_ours, source_at, target_at)
    if winner == "source":
        write |= {name: source[name] for name in disputed}
        outcome: Outcome = "inserted" if target is None else "updated"
        # Before the first sync there was nothing to agree on: which side is right is a setting.
        first = agreed is None and rule in ("theirs", "ours")
        return Decision(
            outcome,
            write,
            known | dict(source),
            () if first else disputed,
            None if first else winner,
        )
    if winner == "target":
        first = agreed is None and rule in ("theirs", "ours")
        return Decision(
            "updated" if write else "kept",
            write,
            known | dict(source),
            () if first else disputed,
            None if first else winner,
        )
    undisputed = {name: value for name, value in source.items() if name not in disputed}
    return Decision("asked", write, known | undisputed, disputed, None)


def _winner(
    rule: Rule,
    source_is_ours: bool,
    source_at: dt.datetime | None,
    target_at: dt.datetime | None,
) -> Winner | None:
    if rule == "ask":
        return None
    if rule == "newest":
        if source_at is None or target_at is None or source_at == target_at:
            # Nobody can tell which is newer: a person can.
            return None
        return "source" if source_at > target_at else "target"
    return "source" if (rule == "ours") == source_is_ours else "target"
