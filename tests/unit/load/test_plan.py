"""What is measured, in which order, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import PlanError
from fetcher.load.plan import parse_concurrencies, parse_plan


def test_rounds_are_interleaved():
    plan = parse_plan(concurrency="1,2", rounds=2, duration="3s")
    assert [(number, spec.concurrency, spec.duration) for number, spec in plan.order()] == [
        (1, 1, 3.0), (1, 2, 3.0), (2, 1, 3.0), (2, 2, 3.0),
    ]  # fmt: skip


def test_what_is_not_said():
    plan = parse_plan(concurrency=" 10, 50,10 ")
    assert (plan.concurrencies, plan.duration, plan.requests, plan.rate, plan.rounds) == ((10, 50), 10.0, None, None, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": "0"}, "0 should be from 1 to 100,000"),
        ({"concurrency": "-1"}, "'-1' is no whole number"),
        ({"concurrency": "10,,50"}, "'' is no whole number; write 10,50,100"),
        ({"concurrency": "ten"}, "'ten' is no whole number"),
        ({"concurrency": ""}, "'' is no whole number"),
        ({"concurrency": "1.5"}, "'1.5' is no whole number"),
        ({"concurrency": "\u0664"}, "is no whole number"),
        ({"concurrency": "100001"}, "from 1 to 100,000"),
        ({"concurrency": ",".join(map(str, range(1, 60)))}, "59 settings; give at most 50"),
        ({"duration": "0s"}, "--duration 0s: should be more than 0"),
        ({"duration": "soon"}, "--duration 'soon': should be a duration such as 10s"),
        ({"duration": "10s", "requests": 5}, "give one of them"),
        ({"requests": 0}, "--requests 0: should be from 1"),
        ({"rate": "0"}, "--rate 0: should be more than 0"),
        ({"rate": "fast"}, "--rate 'fast': should be a rate such as 10/s"),
        ({"rate": "inf/s"}, "--rate inf/s: should be more than 0 and at most"),
        ({"rate": "nan/s"}, "--rate nan/s: should be"),
        ({"rounds": 0}, "--rounds 0"),
        ({"warm_up": "-1s"}, "--warm-up '-1s'"),
        ({"warm_up": "2d"}, "--warm-up 2d: should be from 0 to 1d"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(PlanError) as caught:
        parse_plan(**({"concurrency": "10"} | options))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text())
def test_any_text_is_a_list_or_a_plan_error(text):
    try:
        found = parse_concurrencies(text)
    except PlanError as error:
        assert "--concurrency" in str(error)  # noqa: PT017  both ends are fine
    else:
        assert all(value >= 1 for value in found)
