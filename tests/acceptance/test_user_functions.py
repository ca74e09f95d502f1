"""Functions of the user's that do what no function should, in whole processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from origin_process import origin_process

FUNCTIONS = """
import asyncio, sys

def leaves(result):
    if result.job_id == "0-2":
        sys.exit(0)
    return result

def interrupts(result):
    if result.job_id == "0-2":
        raise KeyboardInterrupt
    return result

async def cancels(result):
    if result.job_id == "0-2":
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task
    return result
"""


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


@pytest.fixture
def fetcher(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fetcher", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )

    return run


def config(folder, origin, function):
    (folder / "batch.yaml").write_text(
        f"sources: ['{origin.url}/bytes/10?i={{1..3}}']\n"
        f"stages: [{{type: python, function: '{function}'}}]\n"
        "sinks: [out.jsonl]\n"
    )


@pytest.mark.parametrize("function", ["leaves", "interrupts", "cancels"])
def test_a_function_that_leaves_costs_its_job_and_no_other(fetcher, tmp_path, origin, function):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    config(tmp_path, origin, f"mine:{function}")
    ran = fetcher("run", "batch.yaml")
    assert ran.returncode == 3, ran.stderr
    assert "ok 2  failed 1  skipped 0  (all accounted for)" in ran.stderr
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {record["job_id"]: record.get("error_kind") for record in records} == {
        "0-1": None,
        "0-2": "stage_failed",
        "0-3": None,
    }


@pytest.mark.parametrize("command", ["lint", "run"])
def test_a_module_that_leaves_when_it_is_imported_is_a_fault_of_the_config(fetcher, tmp_path, origin, command):
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    config(tmp_path, origin, "leaving:x")
    refused = fetcher(command, "batch.yaml")
    assert refused.returncode == 78
    assert "ends the process when it is imported" in refused.stderr
    assert not (tmp_path / "out.jsonl").exists()


HANGING = """
import pathlib, time

def hangs(result):
    if result.job_id == "0-2":
        pathlib.Path("hanging").touch()
        time.sleep(3600)
    return result
"""


def test_a_function_that_does_not_return_keeps_no_process(tmp_path, origin):
    (tmp_path / "mine.py").write_text(HANGING)
    (tmp_path / "batch.yaml").write_text(
        f"sources: ['{origin.url}/bytes/10?i={{1..3}}']\n"
        "stages: [{type: python, function: 'mine:hangs', timeout: 1h}]\n"
        "sinks: [out.jsonl]\n"
        "shutdown_timeout: 500ms\n"
    )
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "hanging").exists():
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 75, said
    assert "stage python-1 did not take the last results in time" in said


def test_a_function_that_takes_too_long_costs_its_job_and_no_other(fetcher, tmp_path, origin):
    (tmp_path / "mine.py").write_text(HANGING)
    config(tmp_path, origin, "mine:hangs', timeout: '300ms")
    ran = fetcher("run", "batch.yaml")
    assert ran.returncode == 3, ran.stderr
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {record["job_id"]: record.get("error_message") for record in records} == {
        "0-1": None,
        "0-2": "stage python-1: took longer than 0.3 s",
        "0-3": None,
    }
