"""How gunicorn runs the front door: `gunicorn --config deploy/gunicorn.conf.py api.wsgi:app`.

HOST and PORT say where. What else differs on a machine goes in GUNICORN_CMD_ARGS.
"""

import resource
import sys
from typing import Any

from deploy.binding import bracketed, refusal
from orchestrator.errors import BadSettings
from orchestrator.settings import load

try:
    settings = load()
except BadSettings as error:
    sys.exit(error.detail)

bind = f"{bracketed(settings.host)}:{settings.port}"
# gthread, with errors and stops in our manner. A thread that waits costs some 70 kB and next to no
# time, as `make bench` measures; gevent would need every driver patched.
worker_class = "api.server.FrontDoor"
logger_class = "api.server.Log"
# One process: one listener for replies and one set of connections. More cores: more front doors.
workers = 1
# A stream or a chat holds its thread while it waits. Both are capped, so that a plain request
# always finds one that is free.
threads = settings.max_streams + settings.max_waits + 200
# Those, and connections that are kept alive between two requests.
worker_connections = 2 * threads
# Each of them is a file, and so are the connections to the servers.
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * threads)), hard))
# Longer than a browser's pause between two polls.
keepalive = 15
# The longest wait that a request may ask for (30 s), so that a stop cuts none short. A second
# before a shorter one is over, those that still wait are answered as under way.
graceful_timeout = 30
# gthread's workers report by themselves; a busy thread does not count as silence.
timeout = 60
# Customers' messages do not belong in an access log, and neither do session ids in paths.
accesslog = None
# Its path is one for all gunicorns of a user: two front doors would fight over it.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Refuse to be reachable without credentials, wherever the address came from."""
    for address in server.cfg.address:
        if isinstance(address, tuple):  # a string is the path of a Unix socket
            line = refusal(
                address[0],
                operator_token=settings.operator_token is not None,
                client_keys=settings.client_keys is not None,
            )
            if line:
                sys.exit(line)
