"""The definitions in the document are definitions."""

import re

import pytest

from orchestrator.definitions import parse


def examples(project):
    text = (project / "docs" / "workflows.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_each_example_can_be_put(project):
    ids = [parse(example, "docs/workflows.md").id for example in examples(project)]
    assert ids == ["quote_followed_up", "welcome_large_quotes"]


@pytest.mark.parametrize("kind", ["task", "condition", "callback", "delay"])
def test_the_first_example_shows_the_usual_steps(project, kind):
    definition = parse(examples(project)[0], "docs/workflows.md")
    assert kind in {place.step.kind for place in definition.places.values()}
