"""`make run` for real: every process, on free ports and a data folder of its own."""

import datetime as dt
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import privacy
import psutil
import pymongo
import pytest
import redis
import requests

from deploy.run import can_listen
from deploy.servers import LOOPBACK, free_port
from deploy.supervision import Died, EventReader
from orchestrator.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
ROLES = {"analytics", "conversation", "data_sync", "followup", "orchestrator", "quote"}
PROGRAMS = ROLES | {"valkey", "secantusd", "front-door", "beat", "flower"}
# With other tests at the same time on two cores.
READY_S = 120

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
Eventually = Callable[..., Any]


class Launcher:
    """One `make run`, with what it has printed so far."""

    def __init__(self, data_dir: Path, ports: dict[str, int]) -> None:
        self.data_dir = data_dir
        self.ports = ports
        self.lines: list[str] = []
        own = {"REDIS_URL", "MONGODB_URI", "OPERATOR_TOKEN", "CLIENT_KEYS", "HOST"}
        environment = {name: value for name, value in os.environ.items() if name not in own}
        environment |= {name: str(port) for name, port in ports.items()}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "deploy.run"],
            cwd=PROJECT,
            env=environment | {"DATA_DIR": str(data_dir)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as output:
            self.lines.extend(output)  # line by line, as they come

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.text, re.MULTILINE) is not None

    def is_ready(self) -> bool:
        assert self.child.poll() is None, self.text
        return self.says(r"^Ready after")

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.child.pid).children(recursive=True)

    def environment(self) -> dict[str, str]:
        """Where the servers are, for a program that is started beside the stack."""
        return {
            "DATA_DIR": str(self.data_dir),
            "REDIS_URL": f"redis://{LOOPBACK}:{self.ports['REDIS_PORT']}/0",
            "MONGODB_URI": f"mongodb://{LOOPBACK}:{self.ports['MONGODB_PORT']}",
        }

    def find(self, *words: str) -> psutil.Process | None:
        """The process whose command line ends with these words."""
        for process in self.processes():
            try:
                if tuple(process.cmdline()[-len(words) :]) == words:
                    return process
            except psutil.Error:
                continue
        return None

    def url(self, name: str, path: str) -> str:
        return f"http://{LOOPBACK}:{self.ports[name]}{path}"

    def leaks(self) -> list[str]:
        """What of customers, and which tokens, logs and Redis show."""
        tokens = {
            f"{name.upper()}_TOKEN": (self.data_dir / name).read_text().strip()
            for name in ("operator_token", "flower_password")
        }
        url = f"mongodb://{LOOPBACK}:{self.ports['MONGODB_PORT']}"
        with pymongo.MongoClient[dict[str, Any]](url) as mongo:
            database = mongo[Settings.model_fields["mongodb_database"].default]
            secrets = privacy.secrets_of(database, tokens)
        assert any("message" in what for what in secrets.values())
        with redis.Redis(port=self.ports["REDIS_PORT"], decode_responses=True) as client:
            kept = privacy.everything_in(client)
        return privacy.leaks(
            {"Redis": kept, "a log": privacy.logs_in(self.data_dir / "logs")}, secrets
        )

    def end(self) -> int:
        """Ctrl-C; the exit status."""
        self.child.send_signal(signal.SIGINT)
        status = self.child.wait(timeout=60)
        self._reader.join()
        return status

    def drop(self) -> None:
        """Whatever happened, leave nothing running."""
        if self.child.poll() is None:
            self.end()
        self._reader.join()


def free_ports() -> dict[str, int]:
    return {name: free_port() for name in ("PORT", "FLOWER_PORT", "REDIS_PORT", "MONGODB_PORT")}


def run_to_end(data_dir: Path, ports: dict[str, int]) -> Launcher:
    """A launcher that is expected to give up by itself."""
    launcher = Launcher(data_dir, ports)
    launcher.child.wait(timeout=60)
    launcher.drop()
    return launcher


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("stack") / "data", free_ports())
    yield launcher
    leaks = launcher.leaks() if launcher.child.poll() is None else []
    launcher.drop()
    assert not leaks, "\n".join(leaks[:20])


@pytest.fixture
def ready(stack: Launcher, eventually: Eventually) -> Launcher:
    eventually(stack.is_ready, READY_S, "the whole stack")
    return stack


def test_each_process_has_a_line_when_it_is_ready_and_then_it_says_what_to_try(
    ready: Launcher,
) -> None:
    for name in PROGRAMS:
        assert ready.says(rf"^  {name} .* ready +\d+\.\d s$"), ready.text
    hints = ready.text.partition("Ready after")[2]
    assert "/chat/process" in hints
    assert ready.url("FLOWER_PORT", "") in hints
    assert "orchestrator status" in hints


def test_the_front_door_and_flower_answer_and_flower_asks_for_its_password(
    ready: Launcher,
) -> None:
    assert requests.get(ready.url("PORT", "/health"), timeout=10).ok
    flower = ready.url("FLOWER_PORT", "/workers")
    assert requests.get(flower, timeout=10).status_code == 401
    password = (ready.data_dir / "flower_password").read_text().strip()
    assert requests.get(flower, auth=("operator", password), timeout=10).status_code == 200


def test_flower_shows_six_workers_by_name_their_queues_and_completed_tasks(
    ready: Launcher, eventually: Eventually
) -> None:
    session = requests.Session()
    session.auth = ("operator", (ready.data_dir / "flower_password").read_text().strip())

    def flower(path: str) -> Any:
        answer = session.get(ready.url("FLOWER_PORT", path), timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    quoted = requests.post(
        ready.url("PORT", "/chat/process"),
        json={"message": "isodec 100 mm blanco 10 x 5", "session_id": "flower"},
        timeout=40,
    )
    assert quoted.json()["quote"]["total"] == 7500

    def completed() -> set[str]:
        done = flower("/api/tasks?state=SUCCESS")
        return {f"{task['name']} by {task['worker'].split('@')[0]}" for task in done.values()}

    wanted = {"process_message by conversation", "create_quote by quote"}
    eventually(lambda: wanted <= completed(), 20, "Flower has the completed tasks")
    nodes = flower("/api/workers?refresh=1")
    assert {node.split("@")[0] for node in nodes} == ROLES
    queues = flower("/api/queues/length")["active_queues"]
    assert {queue["name"] for queue in queues} == ROLES
    broker = session.get(ready.url("FLOWER_PORT", "/broker"), timeout=10).text
    assert all(role in broker for role in ROLES)


def test_the_demonstration_shows_a_conversation_and_how_it_came_about(ready: Launcher) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "deploy.demo"],
        cwd=PROJECT,
        env=os.environ | {"DATA_DIR": str(ready.data_dir), "COLUMNS": "110"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr
    for told in ("A customer writes", "¡De nada!", "What became of message 5", "9.450,00"):
        assert told in shown.stdout
    for fact in ("router: quote_agent", "accepted", "waiting", "resumed", "completed"):
        assert fact in shown.stdout
    assert "orchestrator show " in shown.stdout


BLOCK = re.compile(r"```sh\n(.*?)```\s*(?:```\n(.*?)```)?", re.DOTALL)


def test_what_the_documents_say_to_type_is_what_happens(ready: Launcher, tmp_path: Path) -> None:
    section = _told("README.md").partition("## A conversation")[2].partition("\n## ")[0]
    ran = 0
    for script, expected in BLOCK.findall(section):
        printed = _typed(ready, script, tmp_path)
        if expected:
            # Codes and dates are of the day.
            assert _lasting(printed) == _lasting(expected)
        ran += 1
    assert ran >= 3
    # They go on with the conversation that the README has begun.
    [definition] = re.findall(
        r"```yaml\n(id: quote_followed_up.*?)```", _told("docs/workflows.md"), re.S
    )
    (tmp_path / "quote_followed_up.yaml").write_text(definition)
    for document in sorted((PROJECT / "docs").glob("*.md")):
        for script, _ in BLOCK.findall(document.read_text()):
            if "curl" in script and document.name != "add-an-agent.md":  # it has its own test
                printed = _typed(ready, script, tmp_path)
                assert printed.startswith("{"), (document.name, printed)
                assert "urn:agent-orchestrator:problem" not in printed, (document.name, printed)
                ran += 1
    assert ran >= 5


def _told(document: str) -> str:
    return (PROJECT / document).read_text()


def _typed(ready: Launcher, script: str, directory: Path) -> str:
    """What a script of a document prints, at this stack's ports and on a day still to come."""
    tomorrow = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).date().isoformat()
    script = script.replace("http://127.0.0.1:8000", ready.url("PORT", ""))
    script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    script = re.sub(r'(?<="at": ")\d{4}-\d\d-\d\d', tomorrow, script)
    token = (ready.data_dir / "operator_token").read_text().strip()
    typed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=os.environ | ready.environment() | {"OPERATOR_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert typed.returncode == 0, script + typed.stdout + typed.stderr
    return typed.stdout


def _lasting(text: str) -> list[str]:
    dated = r"COT-\d{4}-\d{6}|\d{1,2} \w{3}\.? ?(?:de )?\d{4}|[A-Z][a-z]{2} \d{1,2}, \d{4}"
    return re.sub(dated, "…", text).split()


def test_secrets_are_in_private_files_and_in_no_command_line(ready: Launcher) -> None:
    secrets = [
        (ready.data_dir / name).read_text().strip()
        for name in ("operator_token", "flower_password")
    ]
    others = [file for file in ready.data_dir.rglob("*") if file.stat().st_mode & 0o077]
    assert ready.data_dir.stat().st_mode & 0o077 == 0
    assert not [file for file in others if file.parent == ready.data_dir and file.is_file()]
    for process in ready.processes():
        assert not any(secret in " ".join(process.cmdline()) for secret in secrets)
    for log in [*(ready.data_dir / "logs").iterdir(), ready.data_dir / "supervisord.conf"]:
        assert not any(secret in log.read_text(errors="replace") for secret in secrets)


def test_everything_listens_on_loopback_only(ready: Launcher) -> None:
    for process in ready.processes():
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in (LOOPBACK, "::1"), process.cmdline()


def test_a_second_start_on_the_same_data_is_refused(ready: Launcher) -> None:
    second = run_to_end(ready.data_dir, free_ports())
    assert second.child.returncode == 1
    assert len(second.lines) == 1
    assert f"in use by a stack that runs (process {ready.child.pid})" in second.text


@pytest.mark.parametrize("name", ["PORT", "FLOWER_PORT", "REDIS_PORT", "MONGODB_PORT"])
def test_a_port_in_use_is_one_line_before_anything_starts(
    name: str, ready: Launcher, tmp_path: Path
) -> None:
    port = ready.ports[name]
    other = run_to_end(tmp_path / "data", free_ports() | {name: port})
    assert other.child.returncode == 1
    assert len(other.lines) == 1
    assert f"port {port} " in other.text
    assert f"set {name} " in other.text
    assert not list((tmp_path / "data" / "logs").iterdir())


def test_a_killed_worker_is_started_again_and_that_is_said(
    ready: Launcher, eventually: Eventually
) -> None:
    worker = ready.find("agents.quote", "worker")
    assert worker is not None
    worker.kill()
    eventually(lambda: ready.says(r"^  quote +died \(terminated by SIGKILL\)"), 10)
    eventually(lambda: ready.says(r"^  quote .* ready again"), READY_S)
    assert ready.find("agents.quote", "worker") is not None


def test_a_killed_server_is_started_again_with_its_data(
    ready: Launcher, eventually: Eventually
) -> None:
    with pymongo.MongoClient[dict[str, Any]](
        f"mongodb://{LOOPBACK}:{ready.ports['MONGODB_PORT']}"
    ) as client:
        client.kept.things.insert_one({"_id": "before"})
        server = next(p for p in ready.processes() if p.name() == "secantusd-rs")
        server.kill()
        eventually(lambda: ready.says(r"^  secantusd .* ready again"), 60)
        assert client.kept.things.find_one({"_id": "before"})


def test_what_keeps_dying_young_is_started_after_a_growing_pause(
    ready: Launcher, eventually: Eventually
) -> None:
    for pause_s in (1, 2):
        # It may be older than "young" at first: killed twice, the second death is young.
        while not ready.says(rf"^  beat +died .* again in {pause_s} s"):
            deaths = ready.text.count("  beat          died")
            beat = eventually(lambda: ready.find("agents.all", "beat"), 30)
            beat.kill()
            eventually(lambda: ready.text.count("  beat          died") > deaths, 30)  # noqa: B023
    eventually(lambda: ready.says(r"^  beat .* ready again"), READY_S)


def test_one_more_worker_joins_the_running_stack(
    ready: Launcher, eventually: Eventually, tmp_path: Path
) -> None:
    environment = os.environ | {"DATA_DIR": str(ready.data_dir)}
    for name in ("REDIS_URL", "MONGODB_URI"):
        environment.pop(name, None)
    printed = tmp_path / "worker.log"
    with printed.open("wb") as log:
        more = subprocess.Popen(
            [sys.executable, "-m", "deploy.agent", "quote"],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=log,
        )

    def has_joined() -> bool:
        agents = requests.get(ready.url("PORT", "/api/orchestrator/agents"), timeout=10).json()
        quote = next(agent for agent in agents["agents"] if agent["agent_id"] == "quote_agent")
        return any(str(more.pid) in worker["worker"] for worker in quote["workers"])

    try:
        eventually(has_joined, READY_S)
        eventually(lambda: "worker.ready" in printed.read_text(), 30)
    finally:
        more.terminate()
        assert more.wait(timeout=30) == 0


def test_ctrl_c_ends_everything_and_the_next_start_finds_its_data(
    tmp_path: Path, eventually: Eventually
) -> None:
    ports = free_ports()
    launcher = Launcher(tmp_path / "data", ports)
    try:
        eventually(launcher.is_ready, READY_S)
        with pymongo.MongoClient[dict[str, Any]](
            f"mongodb://{LOOPBACK}:{ports['MONGODB_PORT']}"
        ) as client:
            client.kept.things.insert_one({"_id": "before"})
        with redis.Redis(port=ports["REDIS_PORT"]) as client:
            client.set("kept", "before")
        left = launcher.processes()
        assert len(left) >= len(PROGRAMS)
        assert launcher.end() == 0
        assert launcher.lines[-1] == "Stopped.\n"
        assert not [process for process in left if process.is_running()]
        assert all(can_listen(LOOPBACK, port) for port in ports.values())

        launcher = Launcher(tmp_path / "data", ports)
        eventually(launcher.is_ready, READY_S)
        with pymongo.MongoClient[dict[str, Any]](
            f"mongodb://{LOOPBACK}:{ports['MONGODB_PORT']}"
        ) as client:
            assert client.kept.things.find_one({"_id": "before"})
        with redis.Redis(port=ports["REDIS_PORT"]) as client:
            assert client.get("kept") == b"before"

        # The launcher itself is killed: what it started ends all the same.
        left = launcher.processes()
        launcher.child.kill()
        assert psutil.wait_procs(left, timeout=60)[1] == []
    finally:
        launcher.drop()


def test_the_pause_is_counted_as_supervisord_counts_it() -> None:
    reader = EventReader()
    dies = "2026-01-01 00:00:00,000 WARN exited: quote (exit status 1; not expected)"
    starts = "2026-01-01 00:00:00,000 INFO spawned: 'quote' with pid 7"
    stays = "2026-01-01 00:00:00,000 INFO success: quote entered RUNNING state, process has stayed"

    def pause(*lines: str) -> int:
        event = [reader.read(line) for line in lines][-1]
        assert isinstance(event, Died)
        assert event.reason == "exit status 1"
        return event.pause_s

    assert [pause(starts, dies) for _ in range(3)] == [1, 2, 3]
    assert pause(starts, stays, dies) == 0
    assert pause(starts, dies) == 1
