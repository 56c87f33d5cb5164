"""A front door of a desk, as production starts it."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import requests

from deploy.servers import free_port

PROJECT = Path(__file__).resolve().parents[2]
OPEN_S = 40


class FrontDoor:
    """A gunicorn of a desk, on a port of its own, open when this returns; further arguments are
    gunicorn's options, keywords its environment."""

    def __init__(self, desk: Any, *options: str, **environment: str) -> None:
        self.desk = desk
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = f"front_door_{self.port}"
        self._options = options
        self._environment = environment
        self.process: subprocess.Popen[bytes]
        self.open()

    def open(self) -> None:
        """Start it, also again after `kill`."""
        self.process = self.desk.spawn(
            "gunicorn", "--config", str(PROJECT / "deploy/gunicorn.conf.py"), *self._options,
            "api.wsgi:app", log=self.log, PORT=str(self.port), **self._environment,
        )  # fmt: skip
        self.desk.eventually(self.alive, OPEN_S, "the front door is open")

    def alive(self) -> bool:
        try:
            return requests.get(f"{self.url}/livez", timeout=1).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """SIGKILL of the whole of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
