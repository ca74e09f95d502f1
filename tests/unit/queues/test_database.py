from __future__ import annotations

import sqlite3
import stat

import pytest

from fetcher.errors import StateError
from fetcher.queues.database import open_database, state_error


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_queue_is_for_nobody_elses_eyes(tmp_path):
    path = tmp_path / "state" / "batch.db"
    db = open_database(path, synchronous=False)
    db.execute("INSERT INTO marks VALUES ('a', 'b')")
    assert {file.name: mode(file) for file in path.parent.iterdir()} == {"batch.db": 0o600, "batch.db-wal": 0o600}
    db.close()


def test_a_file_that_is_there_keeps_its_mode(tmp_path):
    path = tmp_path / "batch.db"
    open_database(path, synchronous=False).close()
    path.chmod(0o640)
    open_database(path, synchronous=False).close()
    assert mode(path) == 0o640


def test_a_path_that_can_not_be_opened_is_still_said_by_sqlite(tmp_path):
    (tmp_path / "batch.db").mkdir()
    with pytest.raises(sqlite3.OperationalError) as caught:
        open_database(tmp_path / "batch.db", synchronous=False)
    assert isinstance(state_error(caught.value, tmp_path), StateError)
