"""What becomes of a quote, whatever is done with it in whatever order."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.quotes import QuoteAction, QuoteClosed, QuoteState, next_state, state_at

END = dt.datetime(2026, 12, 9, 12, 0, tzinfo=dt.UTC)
ACTIONS: tuple[QuoteAction, ...] = ("send", "accept", "reject", "expire")
DECIDED = {QuoteState.ACCEPTED, QuoteState.REJECTED}


@pytest.mark.parametrize(
    ("state", "action", "becomes"),
    [
        ("draft", "send", "sent"),
        ("draft", "accept", "accepted"),
        ("draft", "reject", "rejected"),
        ("sent", "send", "sent"),
        ("sent", "accept", "accepted"),
        ("sent", "reject", "rejected"),
        ("sent", "expire", "sent"),
        ("accepted", "send", "accepted"),
        ("accepted", "accept", "accepted"),
        ("rejected", "reject", "rejected"),
    ],
)
def test_a_quote_in_its_time(state: str, action: QuoteAction, becomes: str) -> None:
    now = END - dt.timedelta(seconds=1)
    found = next_state(QuoteState(state), action, valid_until=END, superseded=False, now=now)
    assert found == becomes


@pytest.mark.parametrize(
    ("state", "action", "superseded", "late", "standing"),
    [
        ("accepted", "reject", False, False, "accepted"),
        ("rejected", "accept", False, False, "rejected"),
        ("sent", "accept", False, True, "expired"),
        ("draft", "reject", False, True, "expired"),
        ("sent", "accept", True, False, "superseded"),
        ("draft", "reject", True, False, "superseded"),
    ],
)
def test_what_can_no_longer_be_answered_says_why(
    state: str, action: QuoteAction, superseded: bool, late: bool, standing: str
) -> None:
    with pytest.raises(QuoteClosed) as closed:
        next_state(
            QuoteState(state),
            action,
            valid_until=END,
            superseded=superseded,
            now=END if late else END - dt.timedelta(days=1),
        )
    assert closed.value.standing == standing


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.integers(0, 400), st.booleans()), max_size=12
    )
)
def test_any_story_keeps_the_promises(steps: list[tuple[QuoteAction, int, bool]]) -> None:
    """Decisions stand; nothing is decided late or when superseded; time alone never revives."""
    state, superseded, now = QuoteState.DRAFT, False, END - dt.timedelta(hours=1000)
    for action, hours, supersede in steps:
        now += dt.timedelta(hours=hours)
        superseded = superseded or supersede
        before = state_at(state, END, now)
        try:
            after = next_state(state, action, valid_until=END, superseded=superseded, now=now)
        except QuoteClosed as closed:
            standing = closed.standing
        else:
            standing = None
        if standing is not None:
            assert action in ("accept", "reject")
            assert superseded or not before.open
            assert standing in {"superseded", before.value}
            continue
        # Done again, it changes nothing more.
        again = next_state(after, action, valid_until=END, superseded=superseded, now=now)
        assert again is after
        if before in DECIDED or before is QuoteState.EXPIRED:
            assert after is before
        if after in DECIDED and before not in DECIDED:
            assert now < END
            assert not superseded
            assert action == {"accepted": "accept", "rejected": "reject"}[after.value]
        if after is QuoteState.DRAFT:
            assert state is QuoteState.DRAFT
        state = after
