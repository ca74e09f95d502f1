"""Budgets as a config says them."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from fetcher.budgets import Allowance, Budget

BUDGET = TypeAdapter(Budget)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["10/s", "600/m", "50000/d"], [(10, 1), (600, 60), (50_000, 86_400)]),
        ("5/h", [(5, 3600)]),
        ([" 7 / MIN "], [(7, 60)]),
        ([], []),
    ],
)
def test_what_is_written(written: object, meant: list[tuple[int, float]]):
    found = BUDGET.validate_python(written)
    assert [(allowance.count, allowance.period) for allowance in found] == meant
    assert BUDGET.validate_python(BUDGET.dump_python(found)) == found
    assert BUDGET.validate_python(found) == found


@pytest.mark.parametrize(
    "wrong", ["", "10", 10, "0/s", "-1/s", "1.5/s", "10/w", "10/ms", "1e3/s", "10/s/s", None, ["x"], {}]
)
def test_what_is_wrong_says_what_to_write(wrong: object):
    with pytest.raises(ValidationError, match=r"whole numbers of requests over s, m, h or d, such as"):
        BUDGET.validate_python(wrong)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (["10/s", "0/s"], "has '0/s'; budgets"),
        (["5/w"], "has '5/w'; budgets"),
        ("5/w", "has '5/w'; budgets"),
        ([5, None, "1/s", {}], "has 5 and nothing and a dict; budgets"),
        (["x" * 1000], f"has '{'x' * 60}'; budgets"),
    ],
)
def test_the_entry_that_is_wrong_is_named(written: object, named: str):
    with pytest.raises(ValidationError) as caught:
        BUDGET.validate_python(written)
    assert caught.value.errors()[0]["msg"].startswith(named)


def test_an_allowance_is_shown_as_it_is_written():
    assert [str(Allowance(3, period)) for period in (1, 60, 3600, 86_400, 5)] == ["3/s", "3/m", "3/h", "3/d", "3/5 s"]
