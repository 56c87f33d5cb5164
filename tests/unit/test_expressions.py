"""Expressions end, whatever they are and whatever they are over."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expressions import BadExpression, evaluate, filled


@pytest.mark.parametrize(
    "expression",
    [
        "1" + "+1" * 300,
        "(" * 40 + "1" + ")" * 40,
        "[" * 40 + "]" * 40,
        "!" * 499 + "true",
        "input.l.map(a, input.l.map(b, input.l.map(c, c)))",
        "1 +",
        "",
        "import os",
        "a = 1",
    ],
)
def test_what_is_huge_deep_or_no_expression_is_refused(expression):
    with pytest.raises(BadExpression):
        evaluate(expression, {"input": {"l": []}})


@pytest.mark.parametrize(
    ("expression", "fits", "too_many"),
    [
        ("input.l.all(a, a >= 0)", 1_000, 1_001),
        ("input.l.all(a, input.l.exists(b, b >= a))", 100, 101),
        ("(input.l + input.l).all(a, a >= 0)", 500, 501),
        ("input.o.l.map(a, a).size() >= 0", 1_000, 1_001),
    ],
)
def test_an_expression_goes_over_no_list_for_long(expression, fits, too_many):
    def over(n):
        entries = list(range(n))
        return evaluate(expression, {"input": {"l": entries, "o": {"l": entries}}})

    began = time.process_time()
    assert over(fits) is True
    assert time.process_time() - began < 5
    with pytest.raises(BadExpression, match="at most"):
        over(too_many)


def test_a_long_list_that_nothing_goes_over_is_a_value_like_any_other():
    long = list(range(50_000))
    assert evaluate("input.l", {"input": {"l": long}}) == long
    assert filled({"n": "=size(input.l)"}, {"input": {"l": long}}) == {"n": 50_000}


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_value_or_a_bad_expression(text):
    try:
        evaluate(text, {"input": {"x": 1}})
    except BadExpression:
        return


@pytest.mark.parametrize(
    ("expression", "missing"), [("input.y", True), ("nobody", True), ("input.x + 'a'", False)]
)
def test_a_missing_name_is_told_from_what_makes_no_sense(expression, missing):
    with pytest.raises(BadExpression) as refused:
        evaluate(expression, {"input": {"x": 1}})
    assert refused.value.missing is missing
