"""What schemathesis cannot know of us; it loads this by SCHEMATHESIS_HOOKS."""

import json
import os
import random
from pathlib import Path
from typing import Any

import schemathesis

# {parameter: [ids]}; of streams those that end at once, since a stream that goes on never ends.
KNOWN: dict[str, list[str]] = json.loads(Path(os.environ["FUZZ_KNOWN"]).read_text())
ENDED = "ended:"
MIXED_IN = 0.6
_chance = random.Random(int(os.environ.get("FUZZ_SEED", "1")))


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]
) -> None:
    """Ask for what there is as often as for what there is not."""
    stream = case.operation.path.endswith("/events")
    for name in case.path_parameters or {}:
        known = KNOWN.get(ENDED + name if stream else name)
        if known and (stream or _chance.random() < MIXED_IN):
            case.path_parameters[name] = _chance.choice(known)
