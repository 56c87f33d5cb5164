"""What gunicorn serves: `gunicorn --config deploy/gunicorn.conf.py api.wsgi:app`.

Imported in each worker process, after the fork; connects to nothing until it is asked.
"""

import sys

from api.app import create_app
from orchestrator import logs
from orchestrator.engine import Engine
from orchestrator.errors import BadSettings
from orchestrator.settings import load

try:
    settings = load()
except BadSettings as error:
    print(error.detail, file=sys.stderr)
    # A worker that ends with 3 ends gunicorn; with any other it would be started for ever.
    sys.exit(3)

logs.configure(settings)
app = create_app(Engine(settings))
