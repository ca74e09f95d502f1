from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fetcher.service.api.routes.health import LEAST_FREE, unready
from fetcher.service.models import SinkView, Snapshot

ENOUGH = LEAST_FREE
STUCK = SinkView(batch="secret", sink="postgres", trouble="no route to db.internal", trouble_seconds=61)


def snapshot(state="ready", *sinks):
    return Snapshot(
        at=datetime.now(UTC),
        version="1",
        uptime=1,
        state=state,
        in_flight=0,
        concurrency=1,
        rate=0,
        loop_lag=0,
        cpu=0,
        memory=1,
        batches=[],
        sinks=list(sinks),
    )


@pytest.mark.parametrize(
    "sink",
    [
        SinkView(batch="b", sink="file"),
        STUCK.model_copy(update={"trouble_seconds": 60.0}),
        STUCK.model_copy(update={"required": False}),
        STUCK.model_copy(update={"trouble": None}),
    ],
)
def test_a_service_that_is_well_is_ready(sink):
    assert unready(snapshot("ready", sink), ENOUGH) == []


@pytest.mark.parametrize("state", ["starting", "draining"])
def test_a_service_that_takes_no_work_is_not(state):
    assert unready(snapshot(state), ENOUGH) == [f"the service is {state}"]


def test_nor_is_one_whose_sinks_take_nothing_and_it_does_not_say_which():
    (reason,) = unready(snapshot("ready", STUCK, STUCK), ENOUGH)
    assert reason == "2 required sink(s) of running batches have taken nothing for more than a minute"


def test_nor_one_without_room_on_its_disk():
    assert unready(snapshot(), LEAST_FREE - 1) == ["the disk of service.state_dir has 63 MiB left"]
