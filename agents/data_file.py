"""Data files that a business edits: YAML, read into a model and checked as a whole.

Keeps secret how a fault is traced to its line. Values are taken as the texts that were written;
the model says what they are.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.errors import said_of

MAX_BYTES: Final = 256 * 1024

Where = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class DataFileInvalid(ValueError):
    """The file cannot be used; every fault with its file, line and field."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


def read(path: Path, model: type[Model]) -> Model:
    """What a file holds.

    Raises:
        DataFileInvalid: with everything that is wrong in the file, each with its line.
        OSError: the file cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    if len(text) > MAX_BYTES:
        raise DataFileInvalid([f"{path.name}: is larger than {MAX_BYTES} bytes"])
    try:
        raw = yaml.load(text, Loader=yaml.CBaseLoader)
        root = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError as error:
        raise DataFileInvalid([not_yaml(path.name, error)]) from error
    lines: dict[Where, int] = {}
    faults = []
    for where, row in lines_of(root):
        if where in lines:
            faults.append(f"{path.name}:{row}: {_field(where)}: is written twice")
        lines[where] = row
    try:
        read = model.model_validate(raw)
    except ValidationError as error:
        faults += faults_of(error, path.name, lines)
    if faults:
        raise DataFileInvalid(faults)
    return read


def not_yaml(name: str, error: yaml.YAMLError) -> str:
    """The fault of a file that cannot be parsed, with its line."""
    mark = getattr(error, "problem_mark", None)
    return f"{name}{f':{mark.line + 1}' if mark else ''}: is not YAML"


def faults_of(
    error: ValidationError,
    name: str,
    lines: Mapping[Where, int],
    key: Callable[[Where], Where] = tuple,
) -> list[str]:
    """What a model finds wrong in a file, by line; `key` is the file's name for a place."""
    faults = []
    for problem in error.errors(include_input=False, include_url=False):
        where = key(problem["loc"])
        # What is missing has no line of its own: the nearest thing around it has.
        around = (where[:length] for length in range(len(where), -1, -1))
        row = next(lines[place] for place in around if place in lines)
        faults.append(f"{name}:{row}: {_field(where)}: {said_of(problem)}")
    return faults


def lines_of(node: yaml.Node | None, where: Where = ()) -> Iterator[tuple[Where, int]]:
    """The line of every place in a YAML document."""
    yield where, 1 if node is None else node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from lines_of(value, (*where, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from lines_of(value, (*where, index))


def _field(where: Where) -> str:
    return ".".join(map(str, where)) or "the file"
