from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from fetcher.settings import ByteSize, ByteSpeed, Duration, Rate, Settings, TimeoutSettings

DURATION, SIZE, RATE = TypeAdapter(Duration), TypeAdapter(ByteSize), TypeAdapter(Rate)
SPEED = TypeAdapter(ByteSpeed)
UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("250ms", 0.25),
        ("5m", 300),
        ("5 min", 300),
        ("1h", 3600),
        ("1.5d", 129_600),
        (" 2S ", 2),
        (7, 7),
    ],
)
def test_durations(text, seconds):
    assert DURATION.validate_python(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MiB", 10 * 2**20),
        ("10 MB", 10_000_000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1.5GiB", 3 * 2**29),
        ("7b", 7),
        ("7", 7),
        (7, 7),
    ],
)
def test_sizes(text, size):
    assert SIZE.validate_python(text) == size


@pytest.mark.parametrize(("text", "speed"), [("1KiB/s", 1024), ("2 MB / s", 2_000_000), ("5kB", 5000), (7, 7)])
def test_speeds(text, speed):
    assert SPEED.validate_python(text) == speed


@pytest.mark.parametrize("text", ["1KiB/m", "/s", "fast", "1KiB/s/s", True, None])
def test_what_is_no_speed(text):
    with pytest.raises(ValidationError, match=r"should be bytes per second such as 1KiB/s or 2MB/s"):
        SPEED.validate_python(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("10/s", 10), ("30/m", 0.5), ("7200/h", 2), ("0.5 / s", 0.5), ("1/ms", 1000), (3, 3)]
)
def test_rates(text, rate):
    assert RATE.validate_python(text) == pytest.approx(rate)


@pytest.mark.parametrize("adapter", [DURATION, SIZE, RATE])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "fast",
        "-1s",
        "1 2s",
        "1w",
        "s",
        "1e3s",
        "10//s",
        None,
        True,
        [],
        {},
        float("nan"),
        float("inf"),
        -1,
    ],
)
def test_what_is_no_quantity_is_refused(adapter, value):
    with pytest.raises(ValidationError):
        adapter.validate_python(value)


def test_no_rate_of_nothing():
    for value in (0, "0/s"):
        with pytest.raises(ValidationError):
            RATE.validate_python(value)


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)))
def test_any_number_of_any_unit_is_a_duration(number, unit):
    assert DURATION.validate_python(f"{number}{unit}") == pytest.approx(number * UNITS[unit])


@given(st.integers(0, 2**40))
def test_bare_numbers_are_in_base_units(number):
    assert SIZE.validate_python(number) == SIZE.validate_python(str(number)) == number
    assert DURATION.validate_python(number) == number


@given(st.text())
def test_any_text_is_a_quantity_or_refused_as_one(text):
    for adapter in (DURATION, SIZE, RATE):
        try:
            assert adapter.validate_python(text) >= 0
        except ValidationError as error:
            messages = [found["msg"] for found in error.errors()]
            assert all("should be a " in message or "nput" in message for message in messages)


@pytest.mark.parametrize(
    ("adapter", "texts"),
    [
        (DURATION, ["10s", "250ms", "1.5 h"]),
        (SIZE, ["10MiB", "500kB", "7"]),
        (RATE, ["10/s", "100/m", "0.5/h"]),
    ],
)
def test_the_schema_takes_what_is_written(adapter, texts):
    patterns = [part["pattern"] for part in adapter.json_schema()["anyOf"] if part["type"] == "string"]
    assert all(re.search(patterns[0], text) for text in texts)
    assert not re.search(patterns[0], "fast")


def test_a_section_refuses_unknown_keys_and_does_not_change():
    class Section(Settings):
        a: int = 1

    assert issubclass(Section, BaseModel)
    with pytest.raises(ValidationError):
        Section.model_validate({"b": 1})
    with pytest.raises(ValidationError):
        Section().a = 2  # type: ignore[misc]
    assert TimeoutSettings.model_json_schema()["properties"]["connect"]["description"]
