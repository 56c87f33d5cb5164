"""Who is asking, and what they may do.

Three kinds of caller: the operator (by token), a chat client (by key), and, as long as no
client has a key, any program of this machine ("local"). A caller's name scopes its
idempotency keys, its sessions and the tasks that it may see.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flask import Request, g, request

from api.errors import Forbidden, Unauthenticated
from orchestrator.errors import Invalid
from orchestrator.settings import Settings, is_loopback

# A proxy on this machine makes every visitor look local; these tell that there is one.
PROXY_HEADERS = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Via",
)
Route = Callable[..., Any]


@dataclass(frozen=True)
class Caller:
    """Somebody who is known: "operator", "client:<name>" or "local"; or "visitor", who is not."""

    name: str
    # Its key is on the chat page, so it is everybody: it vouches for no phone, and sees a
    # conversation by its id only.
    anybody: bool = False

    @property
    def operator(self) -> bool:
        """May do everything."""
        return self.name == "operator"

    def may_see(self, owner: str) -> bool:
        """Whether what `owner` asked for is this caller's to read."""
        return self.operator or self.name == owner


class Access:
    """Decorators that let the right callers through to a route.

    `customer` and `operator` pass the caller on as the route's argument `caller`.
    """

    def __init__(self, settings: Settings) -> None:
        token = settings.operator_token
        self._operator = token.get_secret_value().encode() if token else None
        self._page_client = settings.page_client
        self._clients = {key.encode(): name for key, name in settings.clients.items()}

    def customer(self, route: Route) -> Route:
        """For whoever may chat."""
        # Where no client has a key, a program of this machine needs none.
        schemes = ("client", "operator") if self._clients else ("client", "operator", None)
        return self._passing(self.chatting, route, schemes)

    def bearer(self, route: Route) -> Route:
        """For whoever holds the unguessable id in the path: that is the permission."""
        return self._passing(self.holding, route, (None, "client", "operator"))

    def operator(self, route: Route) -> Route:
        """For the operator."""
        return self._passing(self.operating, route, ("operator",))

    def onlooker(self, route: Route) -> Route:
        """For the operator, and for any program of this machine; passes no caller on."""

        @wraps(route)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.looking(request)
            _refuse_query(route)
            return route(*args, **kwargs)

        return _described(guarded, ("operator", None))

    def _passing(
        self, admit: Callable[[Request], Caller], route: Route, schemes: tuple[str | None, ...]
    ) -> Route:
        @wraps(route)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            caller = admit(request)
            g.caller = caller.name
            _refuse_query(route)
            return route(*args, caller=caller, **kwargs)

        return _described(guarded, schemes)

    def chatting(self, asked: Request) -> Caller:
        """The caller, if it may chat.

        Raises:
            Unauthenticated: it showed nothing, or something unknown.
        """
        caller = self.identify(asked)
        if caller is None and not self._clients and is_local(asked):
            caller = Caller("local")
        if caller is None:
            raise Unauthenticated("Send a client key in X-API-Key or as a Bearer token.")
        return caller

    def holding(self, asked: Request) -> Caller:
        """The caller, "visitor" where nothing was shown.

        Raises:
            Unauthenticated: it showed something unknown.
        """
        return self.identify(asked) or Caller("visitor")

    def operating(self, asked: Request) -> Caller:
        """The caller, if it is the operator.

        Raises:
            Unauthenticated: it showed nothing, or something unknown.
            Forbidden: it is a chat client.
        """
        caller = self.identify(asked)
        if caller is None:
            raise Unauthenticated(
                "Send the operator token as a Bearer token."
                if self._operator
                else "This needs an operator token, and OPERATOR_TOKEN is not set."
            )
        if not caller.operator:
            raise Forbidden("This needs the operator token.")
        return caller

    def looking(self, asked: Request) -> None:
        """Raises as `operating` does, but not for who shows nothing and is on this machine."""
        if self.identify(asked) is None and is_local(asked):
            return
        self.operating(asked)

    def identify(self, asked: Request) -> Caller | None:
        """Who the credentials belong to; None where none came.

        Raises:
            Unauthenticated: credentials that belong to nobody.
        """
        callers = [self._caller(shown) for shown in _credentials(asked)]
        # Who shows the operator's token and a client's key is the operator.
        callers.sort(key=lambda caller: not caller.operator)
        return next(iter(callers), None)

    def _caller(self, shown: bytes) -> Caller:
        # Every comparison is made, so that the time tells nothing.
        found = [name for key, name in self._clients.items() if hmac.compare_digest(key, shown)]
        if self._operator is not None and hmac.compare_digest(self._operator, shown):
            return Caller("operator")
        if found:
            return Caller(f"client:{found[0]}", anybody=found[0] == self._page_client)
        raise Unauthenticated("These credentials are not known here.")


def _described(route: Route, schemes: tuple[str | None, ...]) -> Route:
    """Say which credentials a route takes, for its description; None: it does without."""
    route.security = schemes  # type: ignore[attr-defined]
    return route


def _refuse_query(route: Route) -> None:
    """A query at a route that has none is a mistake that nobody would notice.

    Raises:
        Invalid: it came with one.
    """
    inputs = getattr(route, "_spec", {}).get("args", ())
    if request.args and not any(location == "query" for _, location in inputs):
        named = [{"parameter": name[:64], "detail": "is not known here"} for name in request.args]
        raise Invalid(errors=named)


def is_local(asked: Request) -> bool:
    """Whether the request comes straight from a program of this machine.

    The Host header must name this machine too: a web page whose own name was made to point
    here (DNS rebinding) is not a program of this machine.
    """
    if any(header in asked.headers for header in PROXY_HEADERS):
        return False
    return is_loopback(asked.remote_addr or "") and is_loopback(_without_port(asked))


def _without_port(asked: Request) -> str:
    host = asked.headers.get("Host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _credentials(asked: Request) -> list[bytes]:
    """What was shown as key and as token. WSGI gives headers as Latin-1: back to bytes."""
    shown = []
    authorization = asked.headers.get("Authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Only Bearer tokens are known here.")
        shown.append(token)
    if (key := asked.headers.get("X-API-Key")) is not None:
        shown.append(key)
    return [each.strip().encode("latin-1", "replace") for each in shown]
