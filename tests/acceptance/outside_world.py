"""The outside world as local servers: WhatsApp's Graph API, and a receiver of webhooks.

Both speak the real contract and refuse what the real ones refuse. `faults` are taken one per
request: "429", "500", "502", "400", "expired", "window", "slow" (no answer until the server
closes), "cut" (read, and the connection closed), "hold" (read, answered once `release` is set).
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

TOKEN = "EAAG-test-access-token"
NUMBER_ID = "106540352242922"
WEBHOOK_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


class World(ThreadingHTTPServer):
    """A server that notes what it took; `read` counts what it read, also of what it then cut."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.taken: list[dict[str, Any]] = []
        self.read: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.retry_after: str | None = None
        self.release = threading.Event()
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> "World":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        self.closing.set()
        self.release.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def noted(self, request: dict[str, Any]) -> str | None:
        """Note what was read; the fault that this request meets."""
        with self._lock:
            self.read.append(request)
            return self.faults.pop(0) if self.faults else None

    def took(self, request: dict[str, Any]) -> int:
        with self._lock:
            self.taken.append(request)
            return len(self.taken)


class _Handler(BaseHTTPRequestHandler):
    server: World
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.meet(raw)

    def meet(self, raw: bytes) -> None:
        raise NotImplementedError

    def send(self, status: int, body: Any, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def faulty(self, fault: str | None) -> bool:
        """Meet a fault that is everywhere the same; False where there is none."""
        if fault == "slow":
            self.server.closing.wait(60)
            self.close_connection = True
        elif fault == "cut":
            self.close_connection = True
            self.connection.close()
        elif fault == "hold":
            self.server.release.wait(60)
            return False
        else:
            return False
        return True

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


class _Graph(_Handler):
    def meet(self, raw: bytes) -> None:
        message = json.loads(raw)
        fault = self.server.noted(message)
        if fault == "429":
            retry = {"Retry_After": self.server.retry_after} if self.server.retry_after else {}
            return self.error(429, 130429, "Rate limit hit", **retry)
        if fault == "500":
            return self.error(500, 131000, "Something went wrong")
        if fault == "502":
            return self.send(502, b"<html>Bad gateway</html>")
        if fault == "400":
            return self.error(400, 131026, "Message undeliverable")
        if fault == "window":
            return self.error(400, 131047, "Re-engagement message")
        if self.path != f"/v23.0/{NUMBER_ID}/messages":
            return self.error(404, 100, "Unsupported post request")
        if self.headers["Authorization"] != f"Bearer {TOKEN}" or fault == "expired":
            return self.error(401, 190, "Access token has expired")
        wrong = self.wrong(message)
        if wrong is not None:
            return self.error(400, 100, wrong)
        if self.faulty(fault):
            return None
        n = self.server.took(message)
        self.send(
            200,
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": message["to"], "wa_id": message["to"]}],
                "messages": [{"id": f"wamid.{n}"}],
            },
        )
        return None

    @staticmethod
    def wrong(message: dict[str, Any]) -> str | None:
        if message.get("messaging_product") != "whatsapp" or not message.get("to", "").isdigit():
            return "Invalid parameter"
        if message.get("type") == "text":
            body = message["text"]["body"]
            if not 0 < len(body.encode("utf-16-le")) // 2 <= 4096:
                return "text.body must be 1 to 4096 characters"
        elif message.get("type") == "template":
            template = message["template"]
            if not template.get("name") or not template["language"].get("code"):
                return "template.name and language.code are needed"
        else:
            return "type is not known"
        return None

    def error(self, status: int, code: int, text: str, **headers: str) -> None:
        error = {
            "message": f"(#{code}) {text}",
            "type": "OAuthException",
            "code": code,
            "error_subcode": 2494010,
            "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam",
        }
        self.send(status, {"error": error}, **headers)


class _Receiver(_Handler):
    def meet(self, raw: bytes) -> None:
        event = Webhook(WEBHOOK_SECRET).verify(raw, dict(self.headers))
        event |= {"webhook_id": self.headers["webhook-id"]}
        fault = self.server.noted(event)
        if fault == "redirect":
            return self.send(302, b"", Location=f"{self.server.url}/elsewhere")
        if fault is not None and fault.isdigit():
            return self.send(int(fault), b"")
        if self.faulty(fault):
            return None
        self.server.took(event)
        self.send(200, b"")
        return None


class GraphApi(World):
    """WhatsApp's Graph API for one number."""

    def __init__(self) -> None:
        super().__init__(_Graph)

    @property
    def settings(self) -> dict[str, str]:
        """Settings, by their names, that send there."""
        return {
            "whatsapp_api_url": f"{self.url}/v23.0",
            "whatsapp_access_token": TOKEN,
            "whatsapp_phone_number_id": NUMBER_ID,
            "whatsapp_app_secret": "app-secret",
            "whatsapp_verify_token": "verify-token",
            "http_allowed_hosts": "127.0.0.1",
        }

    def said(self) -> list[str]:
        """The texts that were taken, in their order."""
        return [message["text"]["body"] for message in self.taken]


class WebhookReceiver(World):
    """A receiver of Standard Webhooks, as n8n can be: it verifies, and knows repetitions."""

    def __init__(self) -> None:
        super().__init__(_Receiver)

    @property
    def settings(self) -> dict[str, str]:
        """Settings, by their names, that tell it."""
        return {
            "n8n_webhook_url": f"{self.url}/webhook/desk",
            "n8n_webhook_secret": WEBHOOK_SECRET,
            "http_allowed_hosts": "127.0.0.1",
        }
