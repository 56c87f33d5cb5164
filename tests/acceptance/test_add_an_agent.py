"""docs/add-an-agent.md, followed to the letter: its files written, its commands typed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from doors import FrontDoor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

BLOCK = re.compile(r"^( *)```(\S+)(?: (\S+))?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
WORKER = "celery -A agents.warranty worker"
TOKEN = "an operator's token"


@dataclass(frozen=True)
class Block:
    """A fenced block: ```kind name."""

    kind: str
    name: str
    text: str


@pytest.fixture
def document(project: Path) -> list[Block]:
    text = (project / "docs/add-an-agent.md").read_text()
    return [Block(kind, name, textwrap.dedent(body)) for _, kind, name, body in BLOCK.findall(text)]


@pytest.fixture
def desk(desk, project: Path):
    """A desk in a folder that looks like a checkout, with a copy of the agents to add to."""
    desk.environment["AGENTS_PACKAGE"] = "agents"
    shutil.copytree(
        project / "agents", desk.directory / "agents", ignore=shutil.ignore_patterns("__pycache__")
    )
    (desk.directory / ".data").mkdir()
    (desk.directory / ".data/operator_token").write_text(TOKEN)
    # As in an environment where the project is installed.
    (desk.directory / "bin").mkdir()
    command = desk.directory / "bin/orchestrator"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchestrator.cli "$@"\n')
    command.chmod(0o755)
    return desk


@pytest.fixture
def port(desk) -> int:
    """The front door's."""
    return FrontDoor(desk, OPERATOR_TOKEN=TOKEN).port


def test_what_the_document_says_is_what_happens(desk, port: int, document: list[Block]) -> None:
    desk.worker("quote", package="agents")
    worker = None
    typed = []
    for block in document:
        write_files([block], desk.directory)
        for command, expected in commands(block):
            typed.append(command)
            if command == WORKER:
                if worker is not None:
                    worker.send_signal(signal.SIGINT)
                    worker.wait(20)
                worker = desk.worker("warranty", package="agents")
                continue
            printed = type_in(desk, command.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
            assert fits(printed, expected), f"$ {command}\n{printed}"
    assert typed.count(WORKER) == 3
    assert sum(command.startswith("orchestrator submit") for command in typed) >= 6
    assert any(command.startswith("curl") for command in typed)
    # And what the prose says of it.
    (entry,) = desk.engine.database["warranties"].find()
    assert desk.engine.store.get(entry["task"]).caller == "operator"
    parents = desk.engine.database["tasks"].find({"type": "estimate_replacement"}).sort("_id", 1)
    parent = desk.engine.store.get(next(iter(parents))["_id"])
    assert [event["event"] for event in parent.timeline] == [
        "accepted", "claimed", "waiting", "resumed", "claimed", "completed",
    ]  # fmt: skip
    assert desk.engine.store.get(parent.child_ids()[0]).agent == "quote_agent"


def test_its_files_are_as_our_own(tmp_path: Path, project: Path, document: list[Block]) -> None:
    # The linter tells our modules from others' by the files that there are.
    shutil.copy(project / "pyproject.toml", tmp_path)
    shutil.copytree(project / "orchestrator", tmp_path / "orchestrator")
    (tmp_path / "agents/warranty").mkdir(parents=True)
    write_files(document, tmp_path)
    for check in (["check"], ["format", "--check"]):
        linted = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--no-cache", "agents"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert linted.returncode == 0, linted.stdout + linted.stderr


def test_its_service_is_as_the_others(project: Path, document: list[Block]) -> None:
    (block,) = [block for block in document if block.name == "compose.yaml"]
    ours = textwrap.indent(block.text, "  ").replace("warranty", "quote")
    assert ours in (project / "compose.yaml").read_text()


def write_files(blocks: list[Block], folder: Path) -> None:
    """Put the blocks that are files, or the next part of one, where they belong."""
    for block in blocks:
        if block.kind == "python":
            path = folder / block.name
            # The formatter takes blank lines from the beginning of a block.
            before = path.read_text() + "\n\n" if path.exists() else ""
            path.write_text(before + block.text)


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what it prints."""
    if block.kind != "console":
        return
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def type_in(desk, command: str) -> str:
    """What a shell in the desk's folder prints."""
    path = f"{desk.directory / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=desk.directory,
        env=os.environ | desk.environment | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout


def fits(printed: str, expected: str) -> bool:
    """Equal, but for spaces; `...` is anything."""
    words = [re.escape(" ".join(part.split())) for part in expected.split("...")]
    return re.fullmatch(r"\s?.*?\s?".join(words), " ".join(printed.split())) is not None
