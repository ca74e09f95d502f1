"""An origin for https, with a certificate of an authority that exists only as long as the benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trustme

from tests.origin_process import OriginProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HOST = "127.0.0.1"
_GREETING = "listening on "
_STOP_SECONDS = 10.0


class Authority:
    """A certificate authority, and what it issued for this host, as PEM files: ``ca``, ``chain``, ``key``."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.chain, self.key = (folder / f"{name}.pem" for name in ("ca", "chain", "key"))
        authority = trustme.CA()
        issued = authority.issue_cert(_HOST)
        authority.cert_pem.write_to_path(self.ca)
        self.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.key)


@contextmanager
def tls_origin(authority: Authority, pin_cpu: int | None) -> Iterator[OriginProcess]:
    """Start an origin that serves https on a free port of the loopback."""
    command = [sys.executable, "-m", "fetcher", "origin", "--host", _HOST, "--port", "0"]
    command += ["--certfile", str(authority.chain), "--keyfile", str(authority.key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if pin_cpu is not None:
                os.sched_setaffinity(process.pid, {pin_cpu})
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith(_GREETING):
                raise RuntimeError(f"the origin did not start; its first line was {line!r}")
            url = line.removeprefix(_GREETING).strip()
            yield OriginProcess(url, urlsplit(url).port or 0, process.pid, None)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
