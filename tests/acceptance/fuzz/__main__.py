"""`make fuzz`, and a shorter run of the same in the tests."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import HERE, PROJECT, Desk

from deploy.servers import MongoServer, RedisServer
from fuzz.desk import TOKEN, Door

# What any answer is held against. Not among them: that whatever fits a schema is accepted, since
# schemas do not say what exists, nor what a phone is; and that `Allow` names no more than is
# described, since /api/dead-letters/replay is also a path of /api/dead-letters/{task_id}.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "unsupported_method,ignored_auth"
)


def eventually(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    # Whatever else the machine does: nothing here is about how soon.
    deadline = time.monotonic() + 4 * timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)
    return value


def main() -> int:
    """Fuzz a desk of its own; 0 where nothing was found and enough was asked."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="at least so many")
    parser.add_argument("--examples", type=int, default=60, help="random ones per operation")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-time-s", type=int, help="leave out what is not done by then")
    parser.add_argument("--only", help="regular expression of paths")
    parser.add_argument("--keep", type=Path, help="directory for logs and the report")
    asked = parser.parse_args()
    # Told to stop, it ends what it has started all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="fuzz."))
    directory.mkdir(parents=True, exist_ok=True)
    redis = RedisServer(directory / "redis").start()
    mongo = MongoServer(directory / "mongo", sync=False).start()
    desk = Desk(directory, redis, mongo, eventually)
    try:
        desk.engine.init([])
        door = Door(desk)
        known = directory / "known.json"
        known.write_text(json.dumps(door.furnish(eventually)))
        report = directory / "report.ndjson"
        failed = _schemathesis(door, known, report, asked)
        counted = _count(report)
        print(f"requests: {sum(counted.values())}; answers: {dict(sorted(counted.items()))}")
        print(f"logs: {directory}")
        unexpected = desk.log(door.log).count("http.unexpected")
        if unexpected:
            print(f"{unexpected} unexpected errors in the front door's log")
        return int(failed or unexpected > 0 or sum(counted.values()) < asked.requests)
    finally:
        desk.close()
        redis.stop()
        mongo.stop()


def _schemathesis(door: Door, known: Path, report: Path, asked: argparse.Namespace) -> bool:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={HERE / 'fuzz/config.toml'}"),
        *("run", f"{door.url}/openapi.json"),
        f"--header=Authorization: Bearer {TOKEN}",
        f"--checks={CHECKS}",
        f"--phases={asked.phases}",
        f"--max-examples={asked.examples}",
        f"--seed={asked.seed}",
        # Several threads trip over CPython 3.11's parser, which hypothesis uses.
        "--workers=1",
        "--continue-on-failure",
        "--generation-database=none",
        "--request-timeout=30",
        "--warnings=off",
        "--no-color",
        f"--report-ndjson-path={report}",
        *([f"--include-path-regex={asked.only}"] if asked.only else []),
        *([f"--max-time={asked.max_time_s}"] if asked.max_time_s else []),
    ]
    environment = {
        "SCHEMATHESIS_HOOKS": "fuzz.hooks",
        "FUZZ_KNOWN": str(known),
        "FUZZ_SEED": str(asked.seed),
        "PYTHONPATH": f"{HERE}:{PROJECT}",
    }
    done = subprocess.run(command, cwd=known.parent, env=os.environ | environment, check=False)
    return done.returncode != 0


def _count(report: Path) -> Counter[int]:
    """How many answers of each status the report tells of."""
    counted: Counter[int] = Counter()
    for line in report.read_text().splitlines():
        _add(json.loads(line), counted)
    return counted


def _add(told: Any, counted: Counter[int]) -> None:
    if isinstance(told, dict):
        if isinstance(told.get("status_code"), int) and "elapsed" in told:
            counted[told["status_code"]] += 1
        for each in told.values():
            _add(each, counted)
    elif isinstance(told, list):
        for each in told:
            _add(each, counted)


if __name__ == "__main__":
    sys.exit(main())
