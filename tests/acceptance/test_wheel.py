"""What is built is whole: the wheel works outside the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

LOOK = """
import agents.all, celeryconfig, api.app, orchestrator.cli, pathlib, sys
from importlib.resources import files
from agents.business import load_business
from agents.catalogue import load_catalogue
from agents.conversation.dialogue import State, reply
from agents.conversation.understanding import understand

assert all(pathlib.Path(m.__file__).is_relative_to(sys.argv[1]) for m in (agents.all, celeryconfig))
catalogue = load_catalogue()
assert load_business().logo
assert (files("api") / "page" / "chat.html").is_file()
print(reply(State(), understand("hola", catalogue), catalogue).text)
print(*sorted(agent.role for agent in agents.all.app.agents))
"""


def test_the_wheel_runs_outside_the_checkout(tmp_path: Path, project: Path) -> None:
    source = tmp_path / "source"
    # A copy: building leaves files beside the sources.
    subprocess.run(["git", "clone", "--quiet", "--local", str(project), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built, site = tmp_path / "built", tmp_path / "site"
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(built), str(source)],
        check=True,
    )
    (wheel,) = built.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    told = subprocess.run(
        [sys.executable, "-c", LOOK, str(site)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    greeting, roles = told.stdout.strip().split("\n")
    assert "Hola" in greeting
    assert roles == "analytics conversation data_sync followup orchestrator quote"
