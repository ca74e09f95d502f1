"""What may be acknowledged is what every sink has, up to a moment to which every sink can be cut back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fetcher.interfaces import Lease
from fetcher.model import Job
from fetcher.pipeline.ledger import Ledger, Point, Unit


def unit(count=1, weight=1):
    lease = Lease(Job(id="0", url="u", host="a"), 0, 0)
    return Unit([lease] * count, [], weight)


def settled(ledger):
    found = ledger.settle()
    return None if found is None else ([unit.number for unit in found.units], found.marks)


def test_nothing_is_settled_before_the_slowest_sink():
    ledger = Ledger(["a", "b"])
    for _ in range(3):
        ledger.enter(unit())
    ledger.reach("a", Point(1, {"a": "1"}))
    ledger.reach("a", Point(2, {"a": "2"}))
    assert settled(ledger) is None
    ledger.reach("b", Point(1, {"b": "x"}))
    assert settled(ledger) == ([1], {"a": "1", "b": "x"})
    ledger.reach("b", Point(2, {"b": "y"}))
    assert settled(ledger) == ([2], {"a": "2", "b": "y"})
    assert settled(ledger) is None


def test_a_mark_in_the_middle_of_anothers_batch_has_to_wait():
    ledger = Ledger(["each", "many"])
    for _ in range(4):
        ledger.enter(unit())
    for number in (1, 2, 3):
        ledger.reach("each", Point(number, {"each": str(number)}))
    ledger.reach("many", Point(4, {"many": "4"}))
    assert settled(ledger) is None  # many can not be cut back to 3
    ledger.reach("each", Point(4, {"each": "4"}))
    assert settled(ledger) == ([1, 2, 3, 4], {"each": "4", "many": "4"})


def test_what_has_no_marks_need_not_be_cut_back():
    ledger = Ledger(["table", "file"])
    for _ in range(3):
        ledger.enter(unit())
    ledger.reach("table", Point(3, {}))
    ledger.reach("file", Point(2, {"file": "2"}))
    assert settled(ledger) == ([1, 2], {"file": "2"})


def test_without_sinks_everything_is_settled_at_once():
    ledger = Ledger([])
    ledger.enter(unit(2, 5))
    assert (ledger.count, ledger.weight) == (2, 5)
    assert settled(ledger) == ([1], {})
    assert (ledger.count, ledger.weight, len(ledger)) == (0, 0, 0)


@given(
    total=st.integers(1, 12),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=60),
    marked=st.sets(st.sampled_from("abc")),
)
def test_marks_are_always_those_of_the_last_settled_unit(total, steps, marked):
    """However sinks group units: a mark that is committed has exactly the settled units before it."""
    ledger, reached, done = Ledger("abc"), dict.fromkeys("abc", 0), 0
    points = {name: {0} for name in "abc"}
    for _ in range(total):
        ledger.enter(unit())
    for name, stride in steps + [(name, total) for name in "abc"]:
        number = min(total, reached[name] + stride)
        if number > reached[name]:
            reached[name] = number
            points[name].add(number)
            ledger.reach(name, Point(number, {name: str(number)} if name in marked else {}))
        found = ledger.settle()
        if found is None:
            # Rightly so: there is no later unit that all have, and after which all marked ones have a mark.
            common = set(range(done + 1, min(reached.values()) + 1))
            assert not common.intersection(*(points[name] for name in marked))
            continue
        assert [unit.number for unit in found.units] == list(range(done + 1, found.units[-1].number + 1))
        done = found.units[-1].number
        assert done <= min(reached.values())
        assert found.marks == {name: str(done) for name in marked}
    assert done == total
