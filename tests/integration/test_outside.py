"""Asking other people's servers by TLS: the name that was asked for is the one that must prove
itself, though the connection goes to the address that was checked."""

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from agents.outside import NotAllowed, NotAnswered, NotAsked, Outside
from orchestrator.settings import Settings

ALLOWED = "localhost,127.0.0.0/8,::1"


@dataclass
class Server:
    """A TLS server on this machine, and what it saw."""

    port: int
    names: list[str | None] = field(default_factory=list)
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)


Start = Callable[[str], Server]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> Settings:
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Settings(http_allowed_hosts=ALLOWED, http_ca_file=file)


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Start]:
    running: list[ThreadingHTTPServer] = []

    def start(certified: str) -> Server:
        seen = Server(0)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.requests.append((self.path, self.headers["Host"], body))
                if self.path == "/hangs-up":
                    self.connection.close()
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"heard")

            def log_message(self, *_: object) -> None:
                pass

        def named(_: object, name: str | None, __: object) -> None:
            seen.names.append(name)

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(certified).configure_cert(context)
        context.sni_callback = named
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign,misc]
        seen.port = server.server_address[1]
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return seen

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def ask(settings: Settings, port: int, path: str = "/hook") -> bytes:
    url = f"https://localhost:{port}{path}"
    return Outside(settings).ask("POST", url, content=b"hello").body


def test_the_name_that_was_asked_for_is_the_one_that_is_shown_and_checked(
    serve: Start, trusted: Settings
) -> None:
    server = serve("localhost")
    assert ask(trusted, server.port) == b"heard"
    assert server.names == ["localhost"]
    assert server.requests == [("/hook", f"localhost:{server.port}", b"hello")]


def test_a_certificate_of_another_name_is_not_believed(serve: Start, trusted: Settings) -> None:
    server = serve("elsewhere.example")
    with pytest.raises(NotAsked):
        ask(trusted, server.port)
    assert server.requests == []


def test_an_authority_that_nobody_named_is_not_believed(serve: Start) -> None:
    server = serve("localhost")
    with pytest.raises(NotAsked):
        ask(Settings(http_allowed_hosts=ALLOWED), server.port)
    assert server.requests == []


def test_a_request_that_was_read_and_not_answered_may_have_taken_effect(
    serve: Start, trusted: Settings
) -> None:
    server = serve("localhost")
    with pytest.raises(NotAnswered):
        ask(trusted, server.port, "/hangs-up")
    assert len(server.requests) == 1


def test_a_private_address_has_to_be_allowed_with_tls_too(serve: Start, trusted: Settings) -> None:
    server = serve("localhost")
    with pytest.raises(NotAllowed):
        ask(trusted.model_copy(update={"http_allowed_hosts": "localhost"}), server.port)
    assert server.names == []
