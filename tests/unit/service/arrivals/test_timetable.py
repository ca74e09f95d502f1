"""When schedules are due: over years, over changes of clocks, and whatever the time of day does."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.service.arrivals.timetable import LATE, Cron, Interval, beginning, decide, is_possible, timetable
from fetcher.service.settings import ScheduleSettings

DAY = 86_400.0
START = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
CRONS = ["30 2 * * *", "0 * * * *", "*/20 2 * * *", "15,45 1,2,3 * * *", "0 0 * * 1", "59 23 L * *"]


def at(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def from_(table, moment, count):
    """Return so many times, each asked for by the one before."""
    found = []
    while len(found) < count:
        moment = table.after(moment)
        found.append(moment)
    return found


def local(times, zone):
    return [datetime.fromtimestamp(time, ZoneInfo(zone)).strftime("%d %H:%M") for time in times]


def schedule(**settings):
    given = {} if "every" in settings else {"cron": "0 * * * *"}
    return ScheduleSettings.model_validate({"name": "s", "batch": {}} | given | settings)


# Times


def test_a_time_that_a_change_of_clocks_leaves_out_comes_right_after_the_gap():
    found = from_(Cron("30 2 * * *", "Europe/Berlin"), at("2024-03-29 12:00", "Europe/Berlin"), 3)
    assert local(found, "Europe/Berlin") == ["30 02:30", "31 03:00", "01 02:30"]


def test_a_time_that_there_is_twice_counts_once():
    found = from_(Cron("30 2 * * *", "Europe/Berlin"), at("2024-10-26 12:00", "Europe/Berlin"), 2)
    assert found == [at("2024-10-27 00:30"), at("2024-10-28 01:30")]
    # Asked within the hour that there is twice, it is over too.
    assert Cron("45 2 * * *", "Europe/Berlin").after(at("2024-10-27 01:10")) == at("2024-10-28 01:45")


def test_what_is_done_every_hour_goes_on_through_a_change_of_clocks():
    for day in ("2024-03-31", "2024-10-27"):
        found = from_(Cron("0 * * * *", "Europe/Berlin"), at(f"{day} 00:00") - 1, 5)
        assert {later - sooner for sooner, later in pairwise(found)} == {3600.0}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", CRONS)
def test_times_of_years_come_in_order_and_do_not_depend_on_who_asks_when(zone, expression):
    table = Cron(expression, zone)
    times = list(islice(table._times(START), 1500))
    assert all(sooner < later for sooner, later in pairwise(times))
    for sooner, later in pairwise(times):
        assert table.after(sooner) == table.after((sooner + later) / 2) == later
    for sooner, later in islice(pairwise(times), 0, None, 50):
        assert table.latest(START, later - 1) == table.latest(sooner - 1, later - 1) == sooner
        assert table.latest(sooner, later) == later
        assert table.latest(later, later) is None


def test_the_latest_time_is_found_though_it_was_long_ago():
    assert Cron("0 0 29 2 *").latest(at("2020-01-01"), at("2023-12-31")) == at("2020-02-29")
    assert Cron("0 0 29 2 *").latest(at("2021-01-01"), at("2023-12-31")) is None
    assert Cron("* * * * *").latest(at("1990-01-01"), at("2024-01-01 00:00:59")) == at("2024-01-01")


@given(st.floats(1, 1e6), st.floats(0, 1e7))
def test_an_interval_is_counted_from_the_time_before(every, gone):
    table = Interval(every)
    found = table.latest(START, START + gone)
    if gone < every:
        assert found is None
    elif found is not None:
        assert START + gone - every - 1e-3 <= found <= START + gone + 1e-3
    assert table.after(START) == START + every


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("61 * * * *", "has a minute that can not be: '61"),
        ("* 24 * * *", "has a hour that can not be"),
        ("* * 0 * *", "has a day of the month that can not be"),
        ("* * * 13 *", "has a month that can not be"),
        ("* * * * 9", "has a day of the week that can not be"),
        ("* * * * * *", "should be five fields"),
        ("@daily", "should be five fields"),
        ("0 0 31 2 *", "has a day of the month that can not be"),
        ("0 0 31 2 MON#5", None),
        ("* * * * " + "1," * 5000, "should be five fields"),
        ("*/0 * * * *", "has a minute that can not be"),
        ("², * * * *", "has a minute that can not be"),
        ("9" * 100 + " * * * *", "has a minute that can not be"),
    ],
)
def test_what_is_no_cron_expression_is_told(expression, words):
    if words is None:
        assert Cron(expression).after(START) is not None
        return
    with pytest.raises(ValueError, match=r".") as caught:
        Cron(expression)
    assert words in str(caught.value)


@given(st.text(alphabet="0123456789*/,-#LW MONjan", max_size=30))
def test_whatever_is_written_is_an_expression_or_told(text):
    try:
        table = Cron(text)
    except ValueError:
        return
    assert table.after(START) > START


# What is to be done


def run(settings, clock, last=None, busy=lambda _: False):
    """Ask at each time of a clock; return when what was decided."""
    found, waiting = [], False
    last = beginning(settings, clock[0]) if last is None else last
    for now in clock:
        decision = decide(settings, last, now, busy=busy(now), was_there=waiting)
        if decision is None:
            continue
        waiting = decision.what in {"wait", "cancel"}
        found.append((now, decision.what, decision.at))
        if not waiting:
            last = decision.at
    return found


def test_each_time_of_years_is_run_once():
    for zone in ZONES:
        settings = schedule(cron="30 2 * * *", timezone=zone)
        clock = [START + 7200 * n for n in range(2 * 365 * 12)]
        done = [time for _, what, time in run(settings, clock) if what == "run"]
        assert done == sorted(set(done))
        # Every day has one, whatever its clocks do; the first may have been over.
        assert abs(len(done) - 2 * 365) <= 1
        assert max(later - sooner for sooner, later in pairwise(done)) <= DAY + 3600


def test_an_interval_begins_at_once_and_goes_on():
    found = run(schedule(every="90m"), [START + 60 * n for n in range(200)])
    assert [time - START for _, _, time in found] == [0, 5400, 10_800]


@pytest.mark.parametrize(("missed", "what"), [("once", "run"), ("skip", "skip")])
def test_what_was_missed_is_made_up_for_once_or_left_out(missed, what):
    settings = schedule(cron="0 3 * * *", missed=missed)
    last, now = at("2024-05-01 03:00"), at("2024-05-09 12:00")
    decision = decide(settings, last, now, busy=False)
    assert (decision.what, decision.at) == (what, at("2024-05-09 03:00"))
    assert decide(settings, decision.at, now, busy=False) is None


def test_a_time_that_is_hardly_past_was_not_missed():
    settings = schedule(cron="0 3 * * *", missed="skip")
    last, due = at("2024-05-01 03:00"), at("2024-05-02 03:00")
    assert decide(settings, last, due + LATE, busy=False).what == "run"
    assert decide(settings, last, due + LATE + 1, busy=False).what == "skip"
    # It has been waiting, so the service was there.
    assert decide(settings, last, due + 1000, busy=False, was_there=True).what == "run"


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("skip", [("skip", 1), ("skip", 2), ("run", 3)]),
        ("queue", [("wait", 1), ("wait", 2), ("run", 2), ("run", 3)]),
        ("cancel", [("cancel", 1), ("cancel", 2), ("run", 2), ("run", 3)]),
    ],
)
def test_what_happens_while_the_batch_before_has_not_ended(overlap, expected):
    settings = schedule(overlap=overlap, missed="skip")
    clock = [START + 1800 * n for n in range(1, 7)]
    found = run(settings, clock, last=START, busy=lambda now: now < START + 2.25 * 3600)
    what = list(dict.fromkeys((what, (time - START) / 3600) for _, what, time in found))
    assert what == expected


def test_no_time_comes_twice_when_the_clock_is_set_back():
    settings = schedule(cron="*/10 * * * *")
    there = [START + 60 * n for n in range(200)]
    back = [START + 60 * n - 3600 for n in range(200, 400)]
    done = [time for _, _, time in run(settings, there + back)]
    assert len(done) == len(set(done))
    assert done[-1] == back[-1] - back[-1] % 600


def test_a_clock_that_leaps_ahead_makes_no_crowd_of_batches():
    settings = schedule(cron="*/10 * * * *")
    found = run(settings, [START, START + 30 * DAY, START + 30 * DAY + 1])
    assert [(what, time) for _, what, time in found] == [("run", START + 30 * DAY)]


def test_a_last_time_far_ahead_is_not_believed():
    assert is_possible(START + DAY / 2, START)
    assert not is_possible(START + 3 * DAY, START)


def test_a_rule_that_has_changed_makes_nothing_of_the_past_due():
    now = at("2024-05-02 15:00")
    new = schedule(cron="0 12 * * *")
    assert decide(new, beginning(new, now, at("2024-05-02 03:00")), now, busy=False) is None
    slower = schedule(every="6h")
    last = beginning(slower, now, now - 3600)
    assert timetable(slower).after(last) == now + 5 * 3600
