"""What a service does with a state folder that it can not use (FAULTS.md, F85)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest


def serve(folder):
    """Start a service that is to refuse, and return how it ended."""
    command = [sys.executable, "-m", "fetcher", "serve", "-s", "service.port=0"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


def garbage(path):
    path.write_bytes(b"this was a database once" * 500)


def newer(path):
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE batches(x); PRAGMA application_id = 0x66747376; PRAGMA user_version = 99")
    db.close()


def foreign(path):
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE mine(x)")
    db.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (garbage, "service.db: can not be read"),
        (newer, "service.db: was written by a newer version of fetcher"),
        (foreign, "service.db: is a database, but not that of a service of fetcher"),
    ],
)
def test_f85_a_service_refuses_a_state_that_is_not_its_own_and_touches_nothing(tmp_path, make, words):
    path = tmp_path / "state" / "service" / "service.db"
    path.parent.mkdir(parents=True)
    make(path)
    batch = path.parent / "batches" / "b-1" / "config.yaml"
    batch.parent.mkdir(parents=True)
    batch.write_text("{}")
    before = path.read_bytes()
    done = serve(tmp_path)
    assert done.returncode == 78
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert batch.exists()
