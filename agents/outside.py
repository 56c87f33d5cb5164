"""Asking other people's servers over HTTP.

Keeps secret which of them may be asked, and how that cannot be talked around: the one check of
the allow-list is here, on the name that was asked for and on the address that is then
connected to. Redirects are not followed, proxies of the environment are not used, an answer's
size and time are limited.
"""

import datetime as dt
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx2

from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings

MAX_ANSWER_BYTES: Final = 1024 * 1024
CONNECT_S: Final = 4.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NotAsked(OrchestratorError):
    """Nothing of the request reached the other side: it surely did not take effect."""

    code = "not_reached"
    title = "The other side could not be reached"


class NotAllowed(NotAsked):
    """The settings do not allow that host, or the address that its name stands for."""

    code = "host_not_allowed"
    title = "HTTP_ALLOWED_HOSTS does not allow this host"


class NotAnswered(OrchestratorError):
    """The request was on its way when something broke: it may have taken effect."""

    code = "not_answered"
    title = "The other side did not answer"


@dataclass(frozen=True)
class Answer:
    """An answer; `body` ends at the limit of its size or time, or where it was cut off: it is
    not `whole` then."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    @property
    def retry_after_s(self) -> float | None:
        """What Retry-After says, in seconds from now, an hour at most."""
        told = self.headers.get("retry-after", "")
        try:
            seconds = float(told)
        except ValueError:
            try:
                at = parsedate_to_datetime(told)
            except ValueError:
                return None
            if at.tzinfo is None:
                at = at.replace(tzinfo=dt.UTC)
            seconds = max((at - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
        return min(seconds, 3600.0) if seconds >= 0 else None


class AllowList:
    """Hosts by name (`*.example.com` for all below it), addresses and networks.

    A name that is listed may stand for public addresses only; one that is private, link-local,
    loopback or otherwise not for everybody must be listed as an address too.
    """

    def __init__(self, listed: str) -> None:
        self._names: set[str] = set()
        self._suffixes: set[str] = set()
        self._networks: list[Network] = []
        for item in (item.strip().lower() for item in listed.split(",")):
            if not item:
                continue
            try:
                self._networks.append(ipaddress.ip_network(item))
            except ValueError:
                if item.startswith("*."):
                    self._suffixes.add(item[1:])
                else:
                    self._names.add(item)

    def admits_name(self, host: str) -> bool:
        """Whether a host may be asked at all, by the name or address that was written."""
        host = host.lower().rstrip(".")
        try:
            return self.lists(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            return host in self._names or any(host.endswith(end) for end in self._suffixes)

    def admits_address(self, address: Address) -> bool:
        """Whether a listed name may stand for an address."""
        address = _unwrapped(address)
        public = address.is_global and not address.is_multicast
        return public or self.lists(address)

    def lists(self, address: Address) -> bool:
        """Whether the address itself is listed."""
        address = _unwrapped(address)
        return any(address in network for network in self._networks)


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """The system's authorities, and one's own besides."""
    if ca_file is None:
        return True
    context = ssl.create_default_context()
    context.load_verify_locations(ca_file)
    return context


class Outside:
    """Asks servers that the settings allow. One per process; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._allowed = AllowList(settings.http_allowed_hosts)
        self._timeout_s = settings.http_timeout_s
        self._client = httpx2.Client(
            trust_env=False,
            verify=_trust(settings.http_ca_file),
            follow_redirects=False,
            timeout=httpx2.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
            # A connection that is kept may be closed by the other side just as a request goes
            # out on it, and nobody could tell whether that was read: each has its own.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def ask(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Make one request; of the answer at most so many bytes are read.

        Raises:
            NotAllowed: the settings do not allow it.
            NotAsked: nothing of it arrived.
            NotAnswered: unknown whether it took effect.
        """
        try:
            asked = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise NotAllowed("The address is not a URL.") from error
        address = self._address(asked)
        sent_headers = {"User-Agent": "agent-orchestrator", **(headers or {})}
        sent_headers["Host"] = asked.netloc.decode("ascii")
        request = self._client.build_request(
            method,
            # To the address that was checked, not to whatever the name stands for next.
            asked.copy_with(host=str(address)),
            content=content,
            headers=sent_headers,
            extensions={"sni_hostname": asked.raw_host.decode("ascii")},
        )
        try:
            answer = self._client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotAsked(error=type(error).__name__) from error
        except httpx2.HTTPError as error:
            raise NotAnswered(error=type(error).__name__) from error
        try:
            body, whole = self._body(answer, limit_bytes)
            return Answer(answer.status_code, answer.headers, body, whole)
        finally:
            answer.close()

    def _body(self, answer: httpx2.Response, limit_bytes: int) -> tuple[bytes, bool]:
        """What can be had of the body, and whether it is all: the status has told already what
        became of the request."""
        until = time.monotonic() + self._timeout_s
        body = bytearray()
        try:
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > limit_bytes or time.monotonic() > until:
                    return bytes(body[:limit_bytes]), False
        except httpx2.HTTPError:
            return bytes(body), False
        return bytes(body), True

    def _address(self, url: httpx2.URL) -> Address:
        host = url.host
        if url.scheme not in ("https", "http") or not host:
            raise NotAllowed("Only http and https are asked.")
        if not self._allowed.admits_name(host):
            raise NotAllowed(host=host)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NotAsked("The name is not known.", host=host) from error
        addresses = [ipaddress.ip_address(each[4][0]) for each in found]
        allowed = [each for each in addresses if self._allowed.admits_address(each)]
        if not allowed:
            raise NotAllowed("Its name stands for an address that is not public.", host=host)
        if url.scheme == "http" and not self._allowed.lists(allowed[0]):
            raise NotAllowed("Only listed addresses are asked without TLS.", host=host)
        return allowed[0]

    def close(self) -> None:
        """Close what is open."""
        self._client.close()


def _unwrapped(address: Address) -> Address:
    """::ffff:127.0.0.1 is 127.0.0.1."""
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
