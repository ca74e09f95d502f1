"""The service under continuous work: what it holds does not grow with what it has done.

``SOAK_SECONDS=600`` makes it that long; by default it is short. Prints what was measured.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import urllib.error
from pathlib import Path
from statistics import median

import pytest
from origin_process import origin_process
from serve_process import serve_process

SECONDS = float(os.environ.get("SOAK_SECONDS", "18"))
# The first part fills caches and pools; what is compared are the quarters of the rest.
WARM_UP = 0.5
GROWTH = 1.1
MORE_FILES = 12
IN_FLIGHT = 6
JOBS = 400
TICK = 5
CONFLICT = 409


class Load:
    """Submits by API and by folder, and does to batches what people do, with a fixed seed."""

    def __init__(self, service, folder, origin):
        self.service = service
        self.inbox = folder / "watch/inbox"
        self.origin = origin
        self.random = random.Random(7)
        self.submitted = 0
        self.done = 0
        self.jobs = 0

    def step(self):
        """Do the next thing."""
        batches = self.service.ask("GET", "/v1/batches?limit=500")["batches"]
        active = [batch for batch in batches if batch["state"] in {"queued", "running"}]
        for batch in batches:
            self.look_after(batch)
        if len(active) < IN_FLIGHT:
            self.submit()

    def submit(self):
        """Submit a batch, every third one by the folder."""
        self.submitted += 1
        paths = [f"bytes/500?b={self.submitted}&n={{1..{JOBS}}}", f"status/404?b={self.submitted}&n={{1..20}}"]
        config = {"name": f"soak{self.submitted}", "sources": [f"{self.origin}/{path}" for path in paths]}
        if self.submitted % 3:
            self.service.submit(**config)
            return
        draft = self.inbox / f".soak{self.submitted}"
        draft.write_text(json.dumps(config))
        draft.rename(self.inbox / f"soak{self.submitted}.json")

    def look_after(self, batch):
        """Read the results of what has ended, and delete it; now and then pause or cancel what runs."""
        path = f"/v1/batches/{batch['id']}"
        try:
            if batch["state"] in {"done", "cancelled"}:
                records = self.service.ask("GET", f"{path}/results").splitlines()
                ended = sum(batch["progress"]["outcomes"].values())
                assert len(records) == ended, batch
                wanted = TICK if batch["origin"] == "schedule" else JOBS + 20
                assert batch["state"] == "cancelled" or ended == wanted, batch
                self.done += 1
                self.jobs += ended
                self.service.ask("DELETE", path)
            elif batch["state"] == "paused":
                self.service.ask("POST", f"{path}/resume")
            elif self.random.random() < 0.05:
                self.service.ask("POST", f"{path}/{self.random.choice(['pause', 'cancel'])}")
        except urllib.error.HTTPError as error:
            if error.code != CONFLICT:
                raise
            # It has ended, or was paused, between the look and the deed.


def usage(process):
    """Return resident memory in MiB and the number of open files."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024, len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


@pytest.mark.timeout(SECONDS + 120)
def test_memory_and_open_files_stay_what_they_are(tmp_path):
    schedule = "schedules=[{name: tick, every: 5s, batch: {sources: ['%s/bytes/10?tick={1..%d}']}}]"
    with (
        origin_process() as origin,
        serve_process(
            tmp_path,
            "service.watch=watch",
            "limits.per_host.concurrency=50",
            schedule % (origin.url.rstrip("/"), TICK),
        ) as service,
    ):
        load = Load(service, tmp_path, origin.url.rstrip("/"))
        samples = []
        began = time.monotonic()
        while (passed := time.monotonic() - began) < SECONDS:
            load.step()
            samples.append((passed, *usage(service.process)))
            time.sleep(0.1)
        assert service.stop() in {0, 75}
        assert not [line for line in service.log() if line["level"] == "error"]
    warm = [sample for sample in samples if sample[0] > WARM_UP * SECONDS]
    quarter = len(warm) // 4
    first, last = warm[:quarter], warm[-quarter:]
    memory = [median(sample[1] for sample in part) for part in (first, last)]
    files = [median(sample[2] for sample in part) for part in (first, last)]
    sys.stderr.write(
        f"\n{SECONDS:.0f} s, {load.submitted} batches submitted, {load.done} ended, {load.jobs:,} jobs; "
        f"resident memory {memory[0]:.0f} -> {memory[1]:.0f} MiB, open files {files[0]:.0f} -> {files[1]:.0f}\n"
    )
    assert load.done >= 3
    assert memory[1] <= memory[0] * GROWTH
    assert files[1] <= files[0] + MORE_FILES
