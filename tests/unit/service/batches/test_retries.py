"""Which jobs have failed is known by a few bytes each."""

from __future__ import annotations

import json

from fetcher.service.batches.retries import ChosenIds


def test_the_failed_jobs_of_a_batch_and_no_others_are_chosen(tmp_path):
    outcomes = ["ok", "failed", "skipped"]
    records = [{"job_id": f"0-{n}", "outcome": outcomes[n % 3], "url": "http://x/ü"} for n in range(3000)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    ChosenIds.failed(tmp_path / "results.jsonl").save(tmp_path / "ids")
    chosen = ChosenIds.load(tmp_path / "ids")
    assert [f"0-{n}" in chosen for n in range(3000)] == [n % 3 == 1 for n in range(3000)]
    assert len(chosen) == 1000
    assert "1-1" not in chosen
    assert (tmp_path / "ids").stat().st_size == 8000
    assert oct((tmp_path / "ids").stat().st_mode)[-3:] == "600"


def test_a_page_that_has_failed_has_its_whole_listing_fetched_again(tmp_path):
    records = [
        {"job_id": "0-1", "outcome": "ok", "page": 1, "has_more": True},
        {"job_id": "0-1~2", "parent_id": "0-1", "outcome": "failed", "page": 2},
        {"job_id": "0-2", "outcome": "ok", "page": 1, "has_more": True},
        {"job_id": "0-2~2", "parent_id": "0-2", "outcome": "ok", "page": 2, "has_more": False},
        {"job_id": "0-3", "outcome": "failed"},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    chosen = ChosenIds.failed(tmp_path / "results.jsonl")
    wanted = ["0-1", "0-3"]
    assert [name for name in ("0-1", "0-1~2", "0-2", "0-2~2", "0-3") if name in chosen] == wanted
    assert len(chosen) == len(wanted)


def test_nothing_may_have_failed(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"job_id": "0-1", "outcome": "ok"}\n')
    chosen = ChosenIds.failed(tmp_path / "results.jsonl")
    assert not chosen
    assert "0-1" not in chosen
