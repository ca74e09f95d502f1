"""What the summary says of what has bounded a run."""

from __future__ import annotations

import pytest

from fetcher.cli.summary import _bounds
from fetcher.engine.why.advice import Bound
from fetcher.engine.why.bounds import Cause, findings


@pytest.mark.parametrize(
    ("causes", "said"),
    [
        ({Cause(Bound.RATE, "h.test"): 7}, "host rate 100%  (most of all h.test)"),
        ({Cause(Bound.CPU): 90, Cause(Bound.DNS, "h.test"): 10}, "cpu 90%  dns 10%"),
        ({Cause(Bound.SINK, "pg"): 95, Cause(Bound.DNS, "h.test"): 5}, "sink 95%  (most of all pg)"),
        ({Cause(Bound.SINK, "a\x1b[2J"): 1}, r"sink 100%  (most of all a\x1b[2J)"),
    ],
)
def test_what_bounds_a_run_is_a_line(causes, said):
    assert _bounds(findings(causes)) == said


def test_many_small_bounds_are_the_first_of_them():
    causes = {Cause(bound): 1 for bound in Bound}
    assert _bounds(findings(causes)).count("%") == 1
