"""Limits are put into a config, and every other byte of it stays."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import load
from fetcher.config.document import parse
from fetcher.errors import ConfigError
from fetcher.load.amend import amend, amend_file

KNEE = {("limits", "concurrency"): 64}
BOTH = KNEE | {("limits", "per_host", "concurrency"): 32}

FULL = """\
# A comment on top
name:   shop        # spaces kept
sources: [ 'a.txt',"b.txt" ]   # quotes kept

limits:   # the limits
    # measured in May
    concurrency:   100     # in flight
    per_host: {concurrency: 8,   rate: 10/s}   # polite
    hosts:
        "api.example.org": {concurrency: 2}
retry: {attempts: 4}
sinks:
- out.jsonl
# the end"""


def test_only_the_numbers_change():
    amended = amend(FULL, BOTH, "shop.yaml")
    assert amended == FULL.replace("concurrency:   100", "concurrency:   64").replace(
        "{concurrency: 8,", "{concurrency: 32,"
    )


# ruff: noqa: E501  a case a line
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: a\n", "name: a\nlimits: {concurrency: 64}\n"),
        ("name: a", "name: a\nlimits: {concurrency: 64}\n"),
        ("name: a\r\nmax_failures: 1\r\n", "name: a\r\nmax_failures: 1\r\nlimits: {concurrency: 64}\r\n"),
        ("name: a\n...\n", "name: a\nlimits: {concurrency: 64}\n...\n"),
        ("name: a\n# end\n", "name: a\n# end\nlimits: {concurrency: 64}\n"),
        ("{name: a}\n", "{limits: {concurrency: 64}, name: a}\n"),
        ("limits:\nname: a\n", "limits: {concurrency: 64}\nname: a\n"),
        ("limits:   # none yet\nname: a\n", "limits: {concurrency: 64}   # none yet\nname: a\n"),
        ("limits: ~\nname: a\n", "limits: {concurrency: 64}\nname: a\n"),
        ("limits: {}\n", "limits: {concurrency: 64}\n"),
        ("limits: {per_host: {rate: 1/s}}\n", "limits: {concurrency: 64, per_host: {rate: 1/s}}\n"),
        ("limits:\n  # polite\n  per_host:\n    rate: 1/s\n", "limits:\n  concurrency: 64\n  # polite\n  per_host:\n    rate: 1/s\n"),
        ("'limits': {\"concurrency\": '9'} # x\n", "'limits': {\"concurrency\": 64} # x\n"),
        ("\ufefflimits: {concurrency: 9}\n", "\ufefflimits: {concurrency: 64}\n"),
        ("---\nlimits:\n  concurrency: 9\n", "---\nlimits:\n  concurrency: 64\n"),
        ("body: |\n  limits:\n    concurrency: 9\n", "body: |\n  limits:\n    concurrency: 9\nlimits: {concurrency: 64}\n"),
        ("\u00fcber: \U0001f600 # caf\u00e9\nlimits: {concurrency: 9}\n", "\u00fcber: \U0001f600 # caf\u00e9\nlimits: {concurrency: 64}\n"),
    ],
)  # fmt: skip
def test_every_way_to_write_it(before, after):
    assert amend(before, KNEE, "a.yaml") == after


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {concurrency: 9}\nlimits: *x\n",
        "a: &x 9\nlimits: {concurrency: *x}\n",
        "limits: &x {concurrency: 9}\na: *x\n",
        "limits: {concurrency: &x 9}\na: *x\n",
        "limits: {concurrency: '${WORKERS}'}\n",
        "limits: {concurrency: ${WORKERS:5}}\n",
        "limits: [1]\n",
        "- a\n",
        "",
    ],
)
def test_what_is_not_clear_is_left_to_the_user(text):
    with pytest.raises(ConfigError, match=r"can not be changed safely; set limits\.concurrency: 64 yourself"):
        amend(text, KNEE, "a.yaml")


@st.composite
def configs(draw):
    """Configs with a limits section somewhere, in many styles."""
    comment = draw(st.sampled_from(["", "  # why"]))
    limits = draw(
        st.sampled_from([
            "limits: {concurrency: 5}", "limits: {}", "limits:", "limits: {per_host: {rate: 2/s}}", "",
            "limits:\n  concurrency: 5", "limits:\n    per_host:\n        rate: 2/s\n    concurrency: 5",
            "limits:\n  hosts: {a.test: {concurrency: 1}}",
        ])
    )  # fmt: skip
    others = ["name: x", "retry: {attempts: 2}", "sinks:\n- a.jsonl\n-   b.jsonl", "# a remark", "", "dedupe: on"]
    lines = [limits + comment if limits else "", *draw(st.permutations(others))]
    at = draw(st.integers(0, len(lines) - 1))
    lines[0], lines[at] = lines[at], lines[0]
    return draw(st.sampled_from(["\n", "\r\n"])).join("\n".join(lines).split("\n")) + draw(st.sampled_from(["", "\n"]))


@given(configs())
def test_the_rest_means_what_it_meant_and_no_line_is_lost(text):
    amended = amend(text, BOTH, "x.yaml")
    before, after = parse(text, "x", None).data, parse(amended, "x", None).data
    assert after["limits"]["concurrency"] == 64
    assert after["limits"]["per_host"]["concurrency"] == 32
    before.pop("limits", None)
    limits = after.pop("limits")
    assert before == after
    assert set(limits) <= {"concurrency", "per_host", "hosts"}
    untouched = [
        line for line in text.splitlines() if not line.strip().startswith(("limits", "concurrency", "per_host"))
    ]
    assert [line for line in amended.splitlines() if line in untouched] == untouched
    assert amend(amended, BOTH, "x.yaml") == amended


def test_a_file_keeps_its_mode_and_its_link(tmp_path):
    real = tmp_path / "real.yaml"
    real.write_bytes(b"sources: [a.txt]\r\nsinks: [b.jsonl]\r\n")
    real.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    amend_file(link, BOTH)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_bytes().startswith(b"sources: [a.txt]\r\nsinks: [b.jsonl]\r\n")
    assert load(link, environ={}).limits.per_host.concurrency == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]
