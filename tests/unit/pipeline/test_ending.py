"""Who wants to know the end of a run is told of it, and its mark is kept."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from fetcher.errors import SinkError
from fetcher.pipeline import ending as module
from fetcher.pipeline.ending import conclude, ending_of, wants_ending
from fetcher.pipeline.outlet import Outlet, Plan
from fetcher.pipeline.tally import Tally
from fetcher.testing import MemorySink

ENDING = ending_of("b", 3, Tally(), limit="0", exceeded=False, stopped=None)


class Listener(MemorySink):
    """Raises what it is given, in turn, and then takes note."""

    def __init__(self, *failures):
        super().__init__()
        self.failures = list(failures)
        self.told = []

    async def conclude(self, ending):
        if self.failures:
            raise self.failures.pop(0)
        self.told.append(ending)
        return "told"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", 0.001)


@pytest.fixture
def committed():
    return {}


@pytest.fixture
def commit(committed):
    async def store(marks):
        committed.update(marks)

    return store


def away():
    return SinkError("is away", retryable=True)


async def test_a_sink_that_does_not_want_to_know_is_not_told(commit, committed):
    listener = Listener()
    outlets = [Outlet("sink:0", MemorySink()), Outlet("sink:1", listener)]
    assert wants_ending(outlets)
    assert not wants_ending(outlets[:1])
    await conclude(outlets, ENDING, commit)
    assert listener.told == [ENDING]
    assert committed == {"sink:1": "told"}
    assert outlets[1].mark == "told"


async def test_one_that_is_away_is_told_when_it_is_back(commit, committed):
    listener = Listener(away(), SinkError("is busy", retryable=True, pause=0.001), away())
    await conclude([Outlet("sink:0", listener)], ENDING, commit)
    assert listener.told == [ENDING]
    assert committed == {"sink:0": "told"}


@pytest.mark.parametrize(
    "failure", [SinkError("no"), SinkError("is away", retryable=True, pause=60.0), TypeError("bug")]
)
async def test_the_failure_of_one_that_is_required_comes_after_all_are_told(commit, committed, failure):
    failing, listener = Listener(failure), Listener()
    outlets = [Outlet("sink:0", failing), Outlet("sink:1", listener)]
    with pytest.raises(type(failure), match=str(failure)):
        await conclude(outlets, ENDING, commit)
    assert listener.told == [ENDING]
    assert committed == {"sink:1": "told"}
    assert outlets[0].errors == 1


@pytest.mark.parametrize("failure", [SinkError("no"), TypeError("bug")])
async def test_one_that_is_not_required_fails_without_consequence(commit, committed, failure):
    outlet = Outlet("sink:0", Listener(failure), Plan(title="mail", required=False))
    with capture_logs() as logs:
        await conclude([outlet], ENDING, commit)
    assert committed == {}
    assert outlet.errors == 1
    assert [(line["event"], line["sink"]) for line in logs] == [("not told of the end", "mail")]


async def test_patience_is_that_of_the_sink(commit):
    outlet = Outlet("sink:0", Listener(*[away() for _ in range(1000)]), Plan(patience=0.0))
    with pytest.raises(SinkError, match="is away"):
        await conclude([outlet], ENDING, commit)
    assert len(outlet.sink.failures) == 999
