"""Expressions over a run's data: CEL, the Common Expression Language of Google.

Keeps secret which library evaluates it. CEL has no loops, no assignments and no way to call
anything of ours, so an expression ends and changes nothing. Where a value may be an expression
(a payload), one is a text that begins with "=".

Raised errors name the expression's own words only: never the data that it ran over.
"""

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import cel

from orchestrator.errors import OrchestratorError

MAX_CHARS: Final = 500  # the parser recurses; this much is far from where it would break
MAX_DEPTH: Final = 32
MAX_MACROS: Final = 2  # each runs over a list: three inside each other could take for ever
# How many entries a list or an object may have that an expression with so many macros sees: the
# evaluator copies lists as it maps them, so that 30,000 entries take minutes, and 100 twice half a
# second. Lists that are added up count together.
MAX_ENTRIES: Final = {1: 1_000, 2: 100}
_MACRO = re.compile(r"\.(?:map|filter|all|exists|exists_one)\s*\(")
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


class BadExpression(OrchestratorError):
    """An expression that cannot be read, or that has no value for this data.

    `missing` is True where a name of it has no value.
    """

    code = "bad_expression"
    title = "The expression cannot be evaluated"

    def __init__(self, detail: str, *, missing: bool = False, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.missing = missing


def is_expression(value: object) -> bool:
    """Whether a value in a payload is to be evaluated."""
    return isinstance(value, str) and value.startswith("=")


@lru_cache(maxsize=10_000)
def compiled(expression: str) -> cel.Program:
    """A checked expression.

    Raises:
        BadExpression: it is too long, nests too deep, or is not CEL.
    """
    if len(expression) > MAX_CHARS:
        raise BadExpression(f"It is longer than {MAX_CHARS} characters.")
    bare = _TEXT.sub("''", expression)
    depth = 0
    for char in bare:
        depth += (char in "([{") - (char in ")]}")
        if depth > MAX_DEPTH:
            raise BadExpression(f"It nests deeper than {MAX_DEPTH} levels.")
    if len(_MACRO.findall(bare)) > MAX_MACROS:
        raise BadExpression(f"It goes over lists more than {MAX_MACROS} times.")
    try:
        return cel.compile(expression)
    except ValueError as error:
        line = next((line for line in str(error).splitlines() if "ERROR:" in line), "")
        reason = line.partition("ERROR: <input>:")[2] or "it cannot be parsed"
        raise BadExpression(f"It is not an expression: {reason}.") from None


@lru_cache(maxsize=10_000)
def _reach(expression: str) -> int | None:
    """The most entries that a list which an expression goes over may have; None: it goes over
    none."""
    bare = _TEXT.sub("''", expression)
    most = MAX_ENTRIES.get(len(_MACRO.findall(bare)))
    return None if most is None else most // (1 + bare.count("+"))


def _longest(value: Any) -> int:
    """The most entries that a list or an object in a value has, however deep."""
    longest, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, Mapping):
            longest = max(longest, len(each))
            left += each.values()
        elif isinstance(each, list | tuple):
            longest = max(longest, len(each))
            left += each
    return longest


def names_of(expression: str) -> frozenset[str]:
    """The names at the root of an expression that it takes its values from."""
    return frozenset(compiled(expression).variables())


def evaluate(expression: str, data: Mapping[str, Any]) -> Any:
    """The value of an expression, as JSON-able values.

    Raises:
        BadExpression: it cannot be read, or has no value for this data.
    """
    program = compiled(expression)
    reach = _reach(expression)
    if reach is not None and _longest(data) > reach:
        raise BadExpression(f"It goes over lists of at most {reach} entries.")
    try:
        return _plain(program.execute(_values(dict(data))))
    except KeyError as error:
        name = str(error.args[0]) if error.args else "?"
        raise BadExpression(f"There is no {name[:60]!r}.", missing=True) from None
    except (TypeError, ValueError, ZeroDivisionError, IndexError, OverflowError) as error:
        raise BadExpression(f"It has no value: {type(error).__name__}.") from None
    except RuntimeError as error:
        missing = "Undefined variable" in str(error)
        what = "a name in it has none" if missing else "it cannot be evaluated"
        raise BadExpression(f"It has no value: {what}.", missing=missing) from None


def filled(value: Any, data: Mapping[str, Any]) -> Any:
    """A payload with its expressions evaluated; "==" begins a text that begins with "=".

    Raises:
        BadExpression: one has no value.
    """
    if isinstance(value, str):
        if value.startswith("=="):
            return value[1:]
        return evaluate(value[1:], data) if is_expression(value) else value
    if isinstance(value, dict):
        return {name: filled(each, data) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, data) for each in value]
    return value


def _values(value: Any) -> Any:
    """As CEL knows them: it has no Decimals."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {str(name): _values(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_values(each) for each in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
