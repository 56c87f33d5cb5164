"""Asking the APIs of others: tokens, limits, outages, and what an answer means for a sync.

Keeps secret how a request is authorised, also when its token expires in the middle, and which
answers are worth another try. All of it goes through `agents.outside`, and so by its allow-list.
"""

import base64
import datetime as dt
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken

from agents.data_sync.store import SyncStore
from agents.outside import Answer, NotAllowed, NotAnswered, NotAsked, Outside
from orchestrator import TaskError
from orchestrator.errors import RetryLater

MAX_PAGE_BYTES: Final = 16 * 1024 * 1024
# A token is renewed this long before it ends, so that it lasts for a request.
EARLY: Final = dt.timedelta(seconds=30)
Now = Callable[[], dt.datetime]


@dataclass(frozen=True)
class Reply:
    """An answer that was taken: 2xx or 304, with its JSON, None where there was none."""

    status: int
    headers: Mapping[str, str]
    data: Any


class Refused(Exception):
    """A 4xx that asking again does not change; `data` is what the other side says."""

    def __init__(self, status: int, data: Any) -> None:
        self.status = status
        self.data = data
        super().__init__(f"refused with {status}")

    def error(self) -> TaskError:
        """The same as the end of a task."""
        return TaskError(
            "other_side_refused", "The other side refuses this request.", status=self.status
        )


class Authorisation(Protocol):
    """Where the token of a request comes from."""

    def token(self) -> str:
        """One that should do."""

    def renew(self, refused: str) -> bool:
        """Get another than one that was refused; False where there is no other."""


class Web:
    """One API of others. `header` makes the header that a token goes in."""

    def __init__(
        self,
        outside: Outside,
        authorisation: Authorisation | None = None,
        header: Callable[[str], dict[str, str]] = lambda token: {
            "Authorization": f"Bearer {token}"
        },
    ) -> None:
        self._outside = outside
        self._authorisation = authorisation
        self._header = header

    def ask(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask with a token, once more with a new one where it was refused.

        Raises:
            RetryLater: a limit, an outage, a cut connection: ask again.
            Refused: a 4xx.
            TaskError: the host is not allowed, or the answer is not what it should be.
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = {"Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        for again in (False, True):
            token = None if self._authorisation is None else self._authorisation.token()
            authorised = {} if token is None else self._header(token)
            answer = asked(self._outside, method, url, content, sent | authorised)
            expired = answer.status == 401 and token is not None and not again
            if not (expired and self._authorisation and self._authorisation.renew(token or "")):
                break
        if answer.status == 401:
            raise TaskError("credentials_refused", "The other side refuses the credentials.")
        return understood(answer)


def asked(
    outside: Outside,
    method: str,
    url: str,
    content: bytes | None,
    headers: Mapping[str, str],
) -> Answer:
    """One request, its failures told as a sync's.

    Raises:
        RetryLater, TaskError: see `Web.ask`.
    """
    try:
        return outside.ask(
            method, url, content=content, headers=headers, limit_bytes=MAX_PAGE_BYTES
        )
    except NotAllowed as error:
        raise TaskError(error.code, error.detail, **error.facts) from None
    except (NotAsked, NotAnswered) as error:
        raise RetryLater(error.detail, reason=error.code) from None


def understood(answer: Answer) -> Reply:
    """What an answer means.

    Raises:
        RetryLater, Refused, TaskError: see `Web.ask`.
    """
    status = answer.status
    if status == 429 or status >= 500 or status == 408:
        raise RetryLater(
            f"The other side answered {status}.",
            after_s=answer.retry_after_s,
            reason=f"status_{status}",
        )
    if status == 304:
        return Reply(status, answer.headers, None)
    if 300 <= status < 400:
        raise TaskError("redirected", "The other side sends on to another address.", status=status)
    if not answer.whole:
        if len(answer.body) >= MAX_PAGE_BYTES:
            raise TaskError("answer_too_large", "An answer is larger than 16 MB: ask for less.")
        raise RetryLater("The answer was cut off.", reason="answer_cut")
    try:
        data = (
            json.loads(answer.body, parse_float=Decimal, parse_constant=str)
            if answer.body.strip()
            else None
        )
    except (ValueError, RecursionError):
        if status < 300:
            # A page of a proxy, or of a server that is just starting.
            raise RetryLater("The answer is not JSON.", reason="answer_unreadable") from None
        data = None
    if status >= 400:
        raise Refused(status, data)
    return Reply(status, answer.headers, data)


# --- Tokens -------------------------------------------------------------------------------


class FixedToken:
    """A token that is what it is."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        return self._token

    def renew(self, refused: str) -> bool:
        return False


class _Granted:
    """A token that a token endpoint grants (RFC 6749), kept in memory until it ends."""

    def __init__(self, outside: Outside, now: Now) -> None:
        self._outside = outside
        self._now = now
        self._lock = threading.Lock()
        self._token: str | None = None
        self._until = now()

    def token(self) -> str:
        with self._lock:
            if self._token is None or self._now() >= self._until:
                self._fetch()
            assert self._token is not None
            return self._token

    def renew(self, refused: str) -> bool:
        with self._lock:
            if self._token == refused:
                self._fetch()
            return True

    def _fetch(self) -> None:
        raise NotImplementedError

    def _granted(self, url: str, form: Mapping[str, str], **headers: str) -> Any:
        """What the token endpoint grants for a form."""
        sent = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        answer = asked(self._outside, "POST", url, urlencode(form).encode(), sent | headers)
        try:
            granted = understood(answer).data
        except Refused as refused:
            raise TaskError(
                "credentials_refused", "The token endpoint refuses.", status=refused.status
            ) from None
        token = granted.get("access_token") if isinstance(granted, dict) else None
        if not isinstance(token, str):
            raise TaskError("credentials_refused", "The token endpoint grants no token.")
        try:
            lasts_s = float(granted.get("expires_in", 3600))
        except (TypeError, ValueError):
            lasts_s = 3600.0
        self._token = token
        self._until = self._now() + dt.timedelta(seconds=min(lasts_s, 10**7)) - EARLY
        return granted


class ClientCredentialsToken(_Granted):
    """A client's own grant (RFC 6749, 4.4). `in_body` for endpoints that know no Basic."""

    def __init__(
        self,
        outside: Outside,
        now: Now,
        *,
        url: str,
        client_id: str,
        secret: str,
        scope: str | None = None,
        in_body: bool = False,
    ) -> None:
        super().__init__(outside, now)
        self._url = url
        self._client_id = client_id
        self._secret = secret
        self._scope = scope
        self._in_body = in_body

    def _fetch(self) -> None:
        form = {"grant_type": "client_credentials"}
        if self._scope is not None:
            form["scope"] = self._scope
        if self._in_body:
            form |= {"client_id": self._client_id, "client_secret": self._secret}
            self._granted(self._url, form)
            return
        basic = base64.b64encode(f"{self._client_id}:{self._secret}".encode()).decode()
        self._granted(self._url, form, Authorization=f"Basic {basic}")


class RefreshingToken(_Granted):
    """A grant by refresh tokens, each good for one use: the next is kept, sealed under the
    client's secret, before it is relied on.

    The first comes from the settings; where they name another than before, that one counts.
    """

    def __init__(
        self,
        outside: Outside,
        now: Now,
        store: SyncStore,
        *,
        url: str,
        client_id: str,
        secret: str,
        first: str,
    ) -> None:
        super().__init__(outside, now)
        self._store = store
        self._url = url
        self._client_id = client_id
        self._secret = secret
        self._first = first
        # Another first token is another connection: its chain begins anew.
        origin = hashlib.sha256(f"{url}\n{client_id}\n{first}".encode()).hexdigest()[:32]
        self._connection = f"refresh/{origin}"
        key = hashlib.scrypt(secret.encode(), salt=origin.encode(), n=2**14, r=8, p=1, dklen=32)
        self._seal = Fernet(base64.urlsafe_b64encode(key))

    def _fetch(self) -> None:
        kept, version = self._store.token(self._connection)
        pair = {"refresh": self._first}
        if kept is not None:
            try:
                pair = json.loads(self._seal.decrypt(kept))
            except (InvalidToken, ValueError):
                raise TaskError(
                    "credentials_refused", "The kept token was sealed under another secret."
                ) from None
        if pair.get("access") not in (None, self._token):
            until = dt.datetime.fromisoformat(pair["until"])
            if until > self._now():
                # Another process has renewed it meanwhile.
                self._token, self._until = pair["access"], until
                return
        granted = self._granted(
            self._url,
            {
                "grant_type": "refresh_token",
                "client_id": self._client_id,
                "client_secret": self._secret,
                "refresh_token": pair["refresh"],
            },
        )
        following = {
            "refresh": granted.get("refresh_token") or pair["refresh"],
            "access": self._token,
            "until": self._until.isoformat(),
        }
        sealed = self._seal.encrypt(json.dumps(following).encode())
        if not self._store.keep_token(self._connection, sealed, version):
            self._token = None
            raise RetryLater("Another process renews this token.", after_s=1.0, reason="renewing")
