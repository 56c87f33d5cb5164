"""One line of JSON per event, and nothing in it that a customer said."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from orchestrator import logs
from orchestrator.settings import Settings

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What has been logged, parsed."""
    root = logging.getLogger()
    before, level, key = root.handlers[:], root.level, logs._key
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure(Settings(log_key="0123456789abcdef"))
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    logs._key = key
    structlog.reset_defaults()
    logs.about_nothing()


def raises() -> None:
    raise ValueError("a customer's words\nover two lines")


def test_an_exception_is_its_type_and_where_it_came_from_ours_and_libraries(lines: Lines) -> None:
    try:
        raises()
    except ValueError as error:
        structlog.get_logger("orchestrator").exception("task.stumbled")
        logging.getLogger("celery").exception("it failed")
        logging.getLogger("celery").error("it failed", exc_info=error)
    told = lines()
    assert [line["event"] for line in told] == ["task.stumbled", "it failed", "it failed"]
    assert all(line["error"] == "ValueError" for line in told)
    assert all(any("raises" in frame for frame in line["where"]) for line in told)
    assert "customer" not in json.dumps(told)


def test_what_a_thread_is_about_is_in_its_lines_until_it_begins_something_else(
    lines: Lines,
) -> None:
    log = structlog.get_logger("orchestrator")
    logs.about(request_id="r1", session=logs.pseudonym("juan"))
    log.info("task.completed", task_id="t1")
    logging.getLogger("kombu").warning("of a library")
    logs.about_nothing()
    log.info("task.completed", task_id="t2")
    first, second, third = lines()
    assert first["request_id"] == second["request_id"] == "r1"
    assert first["session"] == second["session"]
    assert "request_id" not in third


def test_a_pseudonym_hangs_on_the_key_and_does_not_show_the_name(lines: Lines) -> None:
    one = logs.pseudonym("+59899123456")
    assert one == logs.pseudonym("+59899123456") != logs.pseudonym("+59899123457")
    assert "99123456" not in one
    logs.configure(Settings(log_key="another-key-of-16"))
    assert logs.pseudonym("+59899123456") != one
