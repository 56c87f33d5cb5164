"""The processes of a local stack, as supervisord is told of them."""

from pathlib import Path

import pytest

from deploy.folder import Folder
from deploy.programs import Ports, longest_stop_s, our_programs, server_programs
from orchestrator.settings import Settings
from orchestrator.worker import CHILDREN_S


@pytest.mark.parametrize("grace_s", [0.5, 8.0, 120.0])
def test_a_worker_that_is_told_to_stop_may_finish_and_then_hand_back(
    tmp_path: Path, grace_s: float
) -> None:
    ports = Ports(1, 2, 3)
    programs = [
        *server_programs(Folder(tmp_path), ports, redis=True, mongodb=True),
        *our_programs(ports, Settings(shutdown_grace_s=grace_s), "http://127.0.0.1"),
    ]
    stops_s = {program.stop_s for program in programs if program.group == "workers"}
    # Killed at the end of the grace time, what it holds would count as crashed.
    assert min(stops_s) > grace_s + CHILDREN_S
    # And the launcher waits for that, and for the other groups.
    assert longest_stop_s(programs) > max(stops_s) + 5 + 10
