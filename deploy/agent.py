"""`make agent ROLE=quote`: one more worker, joining the stack that `make run` started.

REDIS_URL and MONGODB_URI, where given, name another stack to join.
"""

import os
import sys
from pathlib import Path

from deploy.folder import Folder
from deploy.programs import ROOT, roles


def main() -> None:
    """Become the worker, or end with one line that says why not."""
    package = os.environ.get("AGENTS_PACKAGE") or "agents"
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in roles(package):
        sys.exit(f"make agent: ROLE={role}: must be one of {', '.join(roles(package))}")
    if not (os.environ.get("REDIS_URL") and os.environ.get("MONGODB_URI")):
        folder = Folder(Path(os.environ.get("DATA_DIR") or ".data"))
        if not (folder.stack_env.exists() and folder.is_locked()):
            sys.exit(
                "make agent: no stack is ready here; start `make run` in another terminal first, "
                "or set REDIS_URL and MONGODB_URI"
            )
        os.environ.update({**folder.read_stack_env(), **os.environ})
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "celery", "-A", f"{package}.{role}", "worker"])


if __name__ == "__main__":
    main()
