"""The folder that holds a local stack's data, logs, secrets and lock (`.data`, or DATA_DIR).

| name | is | made by |
| --- | --- | --- |
| lock | held as long as a stack runs on the folder; holds the launcher's process id | launcher |
| stack.env | what another worker needs to join the running stack; gone when it stops | launcher |
| operator_token | bearer token of operators, made once | launcher |
| flower_password | of Flower's user `operator`, made once | launcher |
| logs/ | one file per process, rotated | supervisord |
| redis/, mongodb/ | data of the embedded servers | they |
| supervisord.conf, supervisord.pid | for supervisorctl | launcher, supervisord |

All of it is readable by its owner only.
"""

import fcntl
import os
import secrets
import shlex
from pathlib import Path


class FolderInUse(Exception):
    """Another launcher runs on this folder; `pid` is its process id, as far as known."""

    def __init__(self, pid: str) -> None:
        super().__init__(pid)
        self.pid = pid


class Folder:
    """One such folder, made if it is absent."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.stack_env = self.path / "stack.env"
        self._lock = self.path / "lock"

    def create(self) -> None:
        """Make the folder; what is below is hidden from other users."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    def log(self, name: str) -> Path:
        """The log of a program."""
        return self.logs / f"{name}.log"

    def lock(self) -> int:
        """Take the folder for this process and those that inherit the descriptor returned.

        Raises:
            FolderInUse: somebody has it.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode().strip()
            os.close(descriptor)
            raise FolderInUse(pid) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def is_locked(self) -> bool:
        """Whether a stack runs on the folder now."""
        if not self._lock.exists():
            return False
        try:
            os.close(self.lock())
        except FolderInUse:
            return True
        return False

    def secret(self, name: str) -> str:
        """The secret in the file `name`; a new one is made if there is none."""
        file = self.path / name
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(32) + "\n")
        file.chmod(0o600)
        return file.read_text().strip()

    def write_stack_env(self, variables: dict[str, str]) -> None:
        """Leave what another worker needs, as lines that a shell can read."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items())]
        _write_private(self.stack_env, "".join(lines))

    def read_stack_env(self) -> dict[str, str]:
        """What `write_stack_env` wrote."""
        words = shlex.split(self.stack_env.read_text())
        return dict(word.split("=", 1) for word in words)


def _write_private(file: Path, text: str) -> None:
    """Replace the file in one step, never readable by others in between."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(file)
