"""Budgets that outlive a process: what is written, read again, and made of a file that is not as it was."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from fetcher.budgets import Allowance, BudgetRule
from fetcher.engine.hosts.accounts import Purse
from fetcher.engine.hosts.budget_file import Ledger, keeping
from fetcher.engine.hosts.host import Hosts, Line
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings

if TYPE_CHECKING:
    from pathlib import Path

    from fetcher.engine.hosts.quota import Quota

RULE = BudgetRule("a1b2", ["*"], budget=(Allowance(10, 1), Allowance(5, 60), Allowance(50, 86_400)))
LIMITS = LimitSettings(per_host=HostLimits(budget=["7/h"]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "budgets.json"


def now() -> float:
    return asyncio.get_running_loop().time()


def key(hosts: Hosts) -> Quota:
    return Purse(hosts.accounts, [RULE]).of("x")[0]


def used(path: Path) -> dict[str, list[int]]:
    """Return how many starts of each window a file has, nothing if it is not there."""
    page = json.loads(path.read_bytes())["used"] if path.exists() else {}
    return {
        name: [sum(starts for _, starts in window["starts"]) for window in windows] for name, windows in page.items()
    }


def write(path: Path, content: bytes | dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps({"used": content}).encode())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return [found.name for found in folder.iterdir()] if folder.exists() else []


async def test_what_was_used_is_used_after_a_restart(path: Path):
    hosts = Hosts(LIMITS)
    quota, host = key(hosts), hosts.host("h")
    for _ in range(5):
        quota.take(now())
    for _ in range(3):
        hosts.quota(host).take(now())
    Ledger(path, hosts).save()
    assert used(path) == {"key a1b2": [5, 5], "host h": [3]}
    assert mode(path) == 0o600

    again = Hosts(LIMITS)
    Ledger(path, again).load(now())
    assert 59 < key(again).opens_at(now()) - now() <= 61
    quota = again.quota(again.host("h"))
    assert quota.room(now(), 0.25) == 4
    assert [bound.count for bound in quota.bounds] == [7]


async def test_who_has_no_budget_any_more_is_held_to_none(path: Path):
    hosts = Hosts(LIMITS)
    for _ in range(9):
        hosts.quota(hosts.host("h")).take(now())
    Ledger(path, hosts).save()
    again = Hosts(LimitSettings())
    Ledger(path, again).load(now())
    assert again.quota(again.host("h")).opens_at(now()) == 0.0


async def test_time_that_passed_meanwhile_counts_and_time_that_went_back_does_not(path: Path):
    windows = [{"period": 60, "starts": [[time.time() - 30, 5]]}]
    later = [{"period": 60, "starts": [[time.time() + 500, 5]]}]
    over = [{"period": 60, "starts": [[time.time() - 61, 5]]}]
    for written, least, most in ((windows, 28, 31.5), (later, 58, 61), (over, -1, 0)):
        write(path, {"key a1b2": written})
        hosts = Hosts(LimitSettings())
        Ledger(path, hosts).load(now())
        assert least <= max(-1, key(hosts).opens_at(now()) - now()) <= most


async def test_it_is_written_while_something_changes_and_only_then(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fetcher.engine.hosts.budget_file._PAUSE", 0.01)
    hosts = Hosts(LimitSettings())
    quota = key(hosts)
    async with keeping(Ledger(path, hosts)):
        await asyncio.sleep(0.1)
        assert used(path) in ({}, {"key a1b2": [0, 0]})
        quota.take(now())
        async with asyncio.timeout(10):
            while used(path) != {"key a1b2": [1, 1]}:  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.01)
        quota.take(now())
    assert used(path) == {"key a1b2": [2, 2]}
    assert names(path.parent) == ["budgets.json"]


async def test_what_others_have_written_is_kept_as_long_as_it_counts(path: Path):
    ages = {"key x": 5, "host y": 500}
    write(path, {name: [{"period": 60, "starts": [[time.time() - age, 1]]}] for name, age in ages.items()})
    hosts = Hosts(LimitSettings())
    key(hosts).take(now())
    Ledger(path, hosts).save()
    assert used(path) == {"key x": [1], "key a1b2": [1, 1]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"version": 2, "used": {}}',
        b'{"used": {"key a1b2": [{"period": 0, "starts": []}]}}',
        b'{"used": {"key a1b2": [{"period": 60, "starts": [[1e300, 1]]}]}}',
        b'{"used": {"key a1b2": [{"period": 60, "starts": [[1, -5]]}]}}',
        b'{"used": {"key a1b2": [{"period": 60, "starts": [[1, 1e99]]}]}}',
    ],
)
async def test_a_damaged_file_counts_as_empty_and_is_told_of(path: Path, content: bytes, capsys):
    write(path, content)
    hosts = Hosts(LimitSettings())
    ledger = Ledger(path, hosts)
    ledger.load(now())
    assert key(hosts).opens_at(now()) <= now()
    assert "budgets_not_kept" in capsys.readouterr().out
    key(hosts).take(now())
    ledger.save()
    assert used(path) == {"key a1b2": [1, 1]}


async def test_a_folder_that_takes_no_file_is_told_of_and_stops_nothing(tmp_path: Path, capsys):
    (tmp_path / "state").write_text("a file")
    hosts = Hosts(LimitSettings())
    key(hosts).take(now())
    Ledger(tmp_path / "state" / "budgets.json", hosts).save()
    assert "budgets_not_kept" in capsys.readouterr().out


async def test_without_budgets_that_last_nothing_is_written(path: Path):
    hosts = Hosts(LimitSettings(per_host=HostLimits(budget=["10/s"])))
    host = hosts.host("h")
    host.lines.append(Line(host, None, None))
    hosts.quota(host).take(now())
    Ledger(path, hosts).save()
    assert names(path.parent) == []
