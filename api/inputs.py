"""Reading requests strictly: what comes out can be stored, and what cannot is a 4xx.

Keeps secret what JSON allows and MongoDB or we do not: repeated names, NaN, numbers and
nesting beyond measure, halves of surrogate pairs.
"""

import json
import math
import re
from typing import Any

from apiflask.schema_adapters import registry
from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request
from gunicorn.http.errors import ParseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import RequestEntityTooLarge

from api.errors import Malformed, WrongContentType
from orchestrator.errors import Invalid, said_of

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 32  # MongoDB allows 100 and we wrap payloads; nobody has a use for more
INT64 = range(-(2**63), 2**63)
SHOWN_NAME = re.compile(r"[\w.$-]{1,64}")

# RFC 9651, 3.3.3: a string in quotes. Bare tokens are what many clients send in its place.
_QUOTED_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE_KEY = re.compile(r"[!#-+\--~]+")


class StrictAdapter(PydanticAdapter):
    """APIFlask's way to pydantic, with strict JSON and errors that point at fields."""

    def validate_input(self, request: Request, location: str, **kwargs: Any) -> BaseModel:
        """The model that the request's body or query makes.

        Raises:
            Malformed, WrongContentType: it cannot be read.
            Invalid: it does not fit the model.
        """
        sent = read_body(request) if location == "json" else _query(request)
        try:
            model: BaseModel = self.model_class.model_validate(sent)
        except ValidationError as error:
            problems = error.errors(include_input=False, include_context=False, include_url=False)
            raise Invalid(errors=[_named(problem, location) for problem in problems]) from None
        return model


registry.register("pydantic", StrictAdapter)


def read_body(request: Request) -> Any:
    """The JSON body of a request.

    Raises:
        WrongContentType: not declared as JSON in UTF-8, or compressed.
        RequestEntityTooLarge: it is.
        Malformed: not JSON, or JSON that cannot be kept.
    """
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if not request.is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        raise WrongContentType()
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WrongContentType("Compressed bodies are not read here.")
    return parse_json(raw_body(request, MAX_BODY_BYTES))


def raw_body(request: Request, most_bytes: int) -> bytes:
    """The body of a request as it came.

    Raises:
        RequestEntityTooLarge: it is.
        Malformed: it is not all there, or not as HTTP has it.
    """
    # One more than is read: a body without a declared length is cut there without an error.
    request.max_content_length = most_bytes + 1
    try:
        raw = request.get_data()
    except (OSError, ParseException):
        raise Malformed(
            "The body ends too early, or its chunks are not as HTTP has them."
        ) from None
    if len(raw) < (request.content_length or 0) <= most_bytes:
        # gunicorn hands on what came before the client left.
        raise Malformed("The body ends before its Content-Length.")
    if len(raw) > most_bytes:
        raise RequestEntityTooLarge()
    return raw


def parse_json(raw: bytes) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        Malformed: why, and where it can be told; never the text.
    """
    try:
        # Some Windows clients begin with a byte order mark.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8 (byte {error.start}).") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique_names, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        # Parsers' messages name what was expected, and do not quote.
        raise Malformed(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}). "
            "Line breaks and quotes inside a text must be escaped."
        ) from None
    except RecursionError:
        raise Malformed(f"The body nests deeper than {MAX_DEPTH} levels.") from None
    except ValueError:
        # Python refuses to read integers of thousands of digits.
        raise Malformed("The body holds a number that is too long.") from None
    _check_storable(value)
    return value


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key of a request, quoted (as the standard has it) or bare.

    Raises:
        Malformed: it is neither, is empty, or has more than 255 characters.
    """
    sent = request.headers.get("Idempotency-Key")
    if sent is None:
        return None
    sent = sent.strip()
    key = sent if _BARE_KEY.fullmatch(sent) else None
    if quoted := _QUOTED_KEY.fullmatch(sent):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not key or len(key) > 255:
        detail = "must be a quoted string of 1 to 255 printable ASCII characters"
        raise Malformed(errors=[{"header": "Idempotency-Key", "detail": detail}])
    return key


def last_event_id(request: Request, by_query: int | None) -> int | None:
    """The last event of a stream that a client has seen, by header or else by query.

    Raises:
        Malformed: it is no number of ours.
    """
    sent = request.headers.get("Last-Event-ID", "").strip()
    if not sent:
        return by_query
    if not (sent.isascii() and sent.isdecimal() and len(sent) <= 15):
        detail = "must be the id of an event of this stream"
        raise Malformed(errors=[{"header": "Last-Event-ID", "detail": detail}])
    return int(sent)


def pointer(*path: object) -> str:
    """RFC 6901 JSON pointer; names of absurd length are cut, what is no text becomes "?"."""
    texts = (str(part)[:64].encode(errors="replace").decode() for part in path)
    parts = (text.replace("~", "~0").replace("/", "~1") for text in texts)
    return "".join(f"/{part}" for part in parts)


def _query(request: Request) -> dict[str, str]:
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        named = [{"parameter": name[:64], "detail": "is given more than once"} for name in repeated]
        raise Invalid(errors=named)
    return request.args.to_dict()


def _named(problem: ErrorDetails, location: str) -> dict[str, str]:
    if location == "json":
        return {"pointer": pointer(*problem["loc"]), "detail": said_of(problem)}
    return {"parameter": ".".join(str(part) for part in problem["loc"]), "detail": said_of(problem)}


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in members if names.count(name) > 1)
        shown = f" {repeated!r}" if SHOWN_NAME.fullmatch(repeated) else ""
        raise Malformed(f"The name{shown} is repeated in an object.")
    return members


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON.")


def _check_storable(value: Any) -> None:
    """See that MongoDB can hold it; without recursion, for it may be deep."""
    left: list[tuple[Any, tuple[object, ...]]] = [(value, ())]
    while left:
        value, path = left.pop()
        why = None
        if len(path) > MAX_DEPTH:
            raise Malformed(f"The body nests deeper than {MAX_DEPTH} levels.")
        if isinstance(value, str):
            why = None if _is_text(value) else "half of a surrogate pair"
        elif isinstance(value, float):
            why = None if math.isfinite(value) else "a number beyond measure"
        elif isinstance(value, int):
            why = None if value in INT64 else "an integer beyond 64 bits"
        elif isinstance(value, list):
            left += [(item, (*path, n)) for n, item in enumerate(value)]
        elif isinstance(value, dict):
            if not all(_is_text(name) and "\0" not in name for name in value):
                why = "a name that cannot be stored"
            left += [(item, (*path, name)) for name, item in value.items()]
        if why is not None:
            raise Malformed(errors=[{"pointer": pointer(*path), "detail": f"It holds {why}."}])


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
