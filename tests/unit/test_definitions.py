"""What is wrong in a definition is told before it is kept: where, and why."""

import pytest

from orchestrator.definitions import DefinitionInvalid, check, load_folder, parse, written

HEAD = "id: flow\nsteps:\n"


def faults(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(DefinitionInvalid) as refused:
        parse(text, "flow.yaml")
    assert all(line.startswith("flow.yaml:") for line in refused.value.lines)
    return [(fault.line, fault.problem) for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("steps", "line", "words"),
    [
        ("- {id: a, task: t, next: gone}\n", 3, "'gone', which is no step"),
        ("- {id: a, task: t, next: end}\n- {id: b, task: t}\n", 4, "'b' cannot be reached"),
        (
            "- {id: a, task: t}\n- {id: b, condition: 'true', then: a, else: end}\n",
            3,
            "circle without a delay",
        ),
        ("- id: a\n  condition: 'input.x >'\n", 4, "not an expression"),
        ("- id: a\n  condition: nobody.x\n", 4, "There is no 'nobody'"),
        ("- id: a\n  task: t\n  payload:\n    x: '=item.y'\n", 6, "There is no 'item'"),
        ("- {id: a, task: t}\n- {id: a, task: t}\n", 4, "taken already"),
        ("- id: end\n  task: t\n", 3, "taken already"),
        ("- id: a\n  delay: {for: soon}\n", 4, "should match pattern"),
        ("- id: a\n  delay: {for: 1d, working: true}\n", 4, "needs one of"),
        ("- id: a\n  delay: {until: '9:30'}\n", 4, "09:30"),
        ("- id: a\n  delay: {until: '09:30', zone: Moon/Base}\n", 4, "not a time zone"),
        ("- id: a\n  task: t\n  on_failure: {goto: nope}\n", 3, "'nope', which is no step"),
        ("- id: a\n  task: t\n  surprise: 1\n", 5, "Extra inputs"),
        ("- id: a\n  task: t\n  retries: {times: 1000}\n", 5, "less than or equal to 100"),
    ],
)
def test_each_fault_has_its_line(steps, line, words):
    found = faults(HEAD + steps)
    assert any(at == line and words in problem for at, problem in found), found


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("- cron: now and then", "five fields"),
        ("- cron: '0 0 30 2 *'", "a time that comes"),
        ("- cron: '0 9 * * *'\n  zone: Moon/Base", "not a time zone"),
        ("- cron: '0 9 * * *'\n  input: {x: '=event.y'}", "There is no 'event'"),
        ("- event: quote_created\n  when: now > 1", "There is no 'now'"),
        ("- event: quote_created\n  after: 2h", "conversation_idle only"),
        ("- event: full_moon", "quote_created"),
    ],
)
def test_what_starts_runs_is_checked_with_the_rest(on, words):
    [(line, problem)] = faults(f"id: flow\non:\n{on}\nsteps:\n- {{id: a, task: t}}\n")
    assert line in (3, 4)
    assert words in problem


def test_a_circle_with_a_wait_in_it_may_go_round():
    steps = (
        "- {id: a, task: t}\n- {id: w, delay: {for: 1s}}\n- {id: b, condition: 'true', then: a}\n"
    )
    assert len(parse(HEAD + steps, "flow.yaml").places) == 3


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("id: flow\nsteps: [\n", 3, "is not YAML"),
        ("id: flow\nid: flow\n", 2, "written twice"),
        ("- 1\n", 1, "valid dictionary"),
        ("", None, "valid dictionary"),
        ("id: flow\nsteps: " + "[" * 60 + "]" * 60 + "\n", 2, "nests too deep"),
        ("#" * 600_000, None, "larger than"),
    ],
)
def test_what_is_no_definition_at_all(text, line, words):
    with pytest.raises(DefinitionInvalid) as refused:
        parse(text, "flow.yaml")
    [fault] = refused.value.faults
    assert fault.line == line
    assert words in fault.problem


@pytest.mark.parametrize(
    ("value", "words"),
    [("9223372036854775808", "64 bits"), (".nan", "no number"), ("!!binary aGk=", "binary")],
)
def test_values_that_cannot_be_kept_are_refused(value, words):
    [(line, problem)] = faults(f"{HEAD}- id: a\n  task: t\n  payload: {{x: {value}}}\n")
    assert line == 5
    assert words in problem


def test_a_date_is_a_text_as_in_json():
    text = f"{HEAD}- id: a\n  task: t\n  payload: {{x: 2026-12-24, y: 2026-12-24T10:00:00Z}}\n"
    payload = parse(text, "flow.yaml").step("a").payload
    assert payload == {"x": "2026-12-24", "y": "2026-12-24T10:00:00+00:00"}


def test_a_reference_that_multiplies_itself_is_refused():
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)
    )
    assert faults(bomb)


def test_what_is_written_is_read_as_the_same():
    document = {
        "id": "flow",
        "on": [{"event": "conversation_idle", "after": "2h"}, {"cron": "0 9 * * *"}],
        "steps": [
            {"id": "a", "task": "t", "payload": {"x": "=input.x", "ñ": "==not"}},
            {"id": "c", "condition": "data.a == 1", "then": "a2", "else": "end"},
            {"id": "a2", "callback": "x", "timeout": "2h", "on_timeout": "end"},
        ],
    }
    definition = check(document)
    assert parse(written(definition), "again") == definition


def test_a_folder_tells_all_that_is_wrong_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD + "- {id: a, task: t, next: gone}\n")
    (tmp_path / "b.yaml").write_text(HEAD)
    with pytest.raises(DefinitionInvalid) as refused:
        load_folder(tmp_path)
    assert {line.split(":")[0] for line in refused.value.lines} == {
        f"{tmp_path}/a.yaml",
        f"{tmp_path}/b.yaml",
    }
