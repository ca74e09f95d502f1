"""What becomes of outputs over several runs, as a person sees it."""

import gzip
import json
import os
import socket
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from origin_process import origin_process

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


@pytest.fixture
def fetcher(tmp_path):
    def run(*arguments, limit=None):
        command = [sys.executable, "-m", "fetcher", *map(str, arguments)]
        if limit is not None:
            command = ["bash", "-c", f'trap "" XFSZ; ulimit -S -f {limit}; exec "$@"', "bash", *command]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environment
        )

    return run


def batch(folder, name, origin, sink, jobs=3, size=10):
    url = f"{origin.url}/bytes/{size}?{name}={{1..{jobs}}}"
    (folder / f"{name}.yaml").write_text(f"sources: ['{url}']\nsinks: [{sink}]\n")


def ids(path):
    return [(record["batch"], record["job_id"]) for record in map(json.loads, path.read_text().splitlines())]


def test_the_output_of_a_finished_batch_stays_when_its_sink_changes(fetcher, tmp_path, origin):
    batch(tmp_path, "a", origin, "out/first.jsonl")
    assert fetcher("run", "a.yaml").returncode == 0
    before = (tmp_path / "out/first.jsonl").read_bytes()
    refused = fetcher("run", "a.yaml", "-s", "sinks.0=/proc/nope/x.jsonl")
    assert refused.returncode == 78
    assert (tmp_path / "out/first.jsonl").read_bytes() == before
    batch(tmp_path, "a", origin, "out/second.jsonl")
    assert fetcher("run", "a.yaml").returncode == 0
    assert (tmp_path / "out/first.jsonl").read_bytes() == before
    assert len(ids(tmp_path / "out/second.jsonl")) == 3


def test_batches_that_append_to_one_file_keep_one_anothers_records(fetcher, tmp_path, origin):
    sink = "{type: file, path: out.jsonl, if_exists: append}"
    for name in ("a", "b", "a"):
        batch(tmp_path, name, origin, sink)
        done = fetcher("run", f"{name}.yaml")
        assert done.returncode == 0, done.stderr
    found = [name for name, _ in ids(tmp_path / "out.jsonl")]
    assert found == ["a"] * 3 + ["b"] * 3 + ["a"] * 3
    assert fetcher("run", "a.yaml").returncode == 0  # what is its own and last is replaced
    assert [name for name, _ in ids(tmp_path / "out.jsonl")] == found


def test_an_output_is_written_by_one_batch_at_a_time(fetcher, tmp_path, origin):
    sink = "{type: file, path: out.jsonl, if_exists: append}"
    batch(tmp_path, "b", origin, sink)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        (tmp_path / "a.yaml").write_text(f"sources: ['{url}']\nsinks: [{sink}]\n")
        running = subprocess.Popen(
            [sys.executable, "-m", "fetcher", "run", "a.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        connection, _ = server.accept()
        with connection:
            refused = fetcher("run", "b.yaml")
            running.kill()
            running.wait()
    assert refused.returncode == 75
    assert refused.stderr == (
        "out.jsonl: another run is writing to it; wait until it has ended, or choose another path\n"
    )
    assert fetcher("run", "b.yaml").returncode == 0


def test_a_full_disk_can_be_resumed_from(fetcher, tmp_path, origin):
    """The limit holds for every file; bodies of 10 KB see to it that the output meets it long before the queue."""
    batch(tmp_path, "a", origin, "out.jsonl", jobs=400, size=10_000)
    full = fetcher("run", "a.yaml", limit=2000)
    assert (full.returncode, full.stderr.splitlines()[-1]) == (
        75,
        "out.jsonl: File too large; free some space and run again to resume",
    )
    partly = len(ids(tmp_path / "out.jsonl"))
    assert partly < 400
    done = fetcher("run", "a.yaml")
    assert done.returncode == 0, done.stderr
    assert len(set(ids(tmp_path / "out.jsonl"))) == len(ids(tmp_path / "out.jsonl")) == 400


def interrupted(folder):
    """Leave a run of ``a`` behind that was killed with one record of two delivered."""
    with socket.create_server(("127.0.0.1", 0)) as server, origin_process() as origin:
        urls = [f"{origin.url}/bytes/1", f"http://127.0.0.1:{server.getsockname()[1]}/"]
        (folder / "a.yaml").write_text(f"sources: {urls}\nsinks: [out.jsonl]\n")
        running = subprocess.Popen(
            [sys.executable, "-m", "fetcher", "run", "a.yaml"], cwd=folder, stderr=subprocess.DEVNULL
        )
        connection, _ = server.accept()
        with connection:
            while not (folder / "out.jsonl").exists() or not (folder / "out.jsonl").stat().st_size:
                assert running.poll() is None
            # Until the acknowledgement that follows the write; there is nothing to see it by.
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(0.5)
            running.kill()
            running.wait()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda path: path.write_bytes(b"# mine\n" + path.read_bytes()), "was changed since this batch wrote it"),
        (lambda path: path.unlink(), "is not there, but"),
    ],
)
def test_an_output_that_is_not_as_it_was_left_is_not_touched(fetcher, tmp_path, edit, message):
    interrupted(tmp_path)
    output = tmp_path / "out.jsonl"
    edit(output)
    before = output.read_bytes() if output.exists() else None
    refused = fetcher("run", "a.yaml")
    assert refused.returncode == 78
    assert message in refused.stderr
    assert (output.read_bytes() if output.exists() else None) == before


def test_other_sinks_are_refused_while_a_run_is_unfinished(fetcher, tmp_path):
    interrupted(tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    refused = fetcher("run", "a.yaml", "-s", "sinks.0=other.jsonl")
    assert refused.returncode == 78
    assert refused.stderr == (
        "the sinks of 'a' are not those with which its unfinished run began; "
        "put them back to resume it, or start over with --fresh\n"
    )
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert not (tmp_path / "other.jsonl").exists()


def test_an_input_that_can_not_be_used_at_all_is_no_success(fetcher, tmp_path):
    (tmp_path / "urls.txt").write_text("not a url\nhttp://[/\nmailto:me@example.org\n")
    (tmp_path / "bad.yaml").write_text("sources: [urls.txt]\nsinks: [out.jsonl]\nmax_failures: 100%\n")
    ran = fetcher("run", "bad.yaml")
    assert ran.returncode == 3
    assert "ok 0  failed 0  skipped 3" in ran.stderr
    assert "not one row of the input could be used" in ran.stderr
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "empty.yaml").write_text("sources: [empty.txt]\nsinks: [empty.jsonl]\n")
    assert fetcher("run", "empty.yaml").returncode == 0


def test_an_output_that_gets_no_record_is_a_whole_file_of_its_kind(fetcher, tmp_path, origin):
    names = ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.warc.gz", "a.parquet"]
    batch(tmp_path, "a", origin, ", ".join(names))
    path = tmp_path / "a.yaml"
    path.write_text(path.read_text() + "stages: [\"outcome == 'never'\"]\n")
    for _ in range(2):  # the second replaces what the first left
        ran = fetcher("run", "a.yaml")
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "a.csv").read_text().startswith("schema_version,batch,job_id,url")
        assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b"schema_version,batch,job_id,url")
        assert (tmp_path / "a.jsonl").read_bytes() == b""
        for suffix, decompress in (("gz", gzip.decompress), ("zst", zstd.decompress)):
            data = (tmp_path / f"a.jsonl.{suffix}").read_bytes()
            assert data
            assert decompress(data) == b""
        assert b"warcinfo" in gzip.decompress((tmp_path / "a.warc.gz").read_bytes())
        table = pq.read_table(tmp_path / "a.parquet")
        assert (table.num_rows, "status" in table.column_names) == (0, True)
        assert len(list((tmp_path / "a.parquet").iterdir())) == 1
    path.write_text(path.read_text().partition("stages:")[0])
    assert fetcher("run", "a.yaml", "--fresh").returncode == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 4
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 3
