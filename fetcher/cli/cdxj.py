"""``fetcher cdxj``: an index of WARC files, by which replay tools such as pywb find a capture."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fetcher.cli.exits import EXIT_CRASH, EXIT_USAGE
from fetcher.cli.text import plain
from fetcher.errors import ConfigError
from fetcher.extras import load_extra

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_INDEXED = frozenset({"response", "revisit"})
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_GZIP_BITS = 31
_DEFAULT_PORTS = {"http": 80, "https": 443}


def cdxj(*files: str) -> int:
    """Write an index of WARC files (CDXJ) to standard output, sorted as replay tools expect it.

    Parameters
    ----------
    files
        WARC files: .warc, .warc.gz or .warc.zst.
    """
    if not files:
        sys.stderr.write("fetcher cdxj: no file given; see fetcher cdxj --help\n")
        return EXIT_USAGE
    # Bytes in order, as LC_ALL=C sort has them: readers search in the file by halves.
    cut: list[str] = []
    lines = sorted(line for file in files for line in _indexed(file, cut))
    sys.stdout.buffer.writelines(lines)
    sys.stdout.flush()
    for file in cut:
        sys.stderr.write(f"{plain(file)}: its last record is cut off; the index has what is before it\n")
    return EXIT_CRASH if cut else 0


def _indexed(file: str, cut: list[str]) -> Iterator[bytes]:
    whole = yield from index(Path(file))
    if not whole:
        cut.append(file)


def index(path: Path) -> Generator[bytes, None, bool]:
    """Yield a line for each capture of a file, in its order, and return whether the file ends with a whole record.

    One that is cut off has no line. Raises ConfigError if the file can not be read.
    """
    fastwarc = load_extra("fastwarc", "warc", "an index of WARC files")
    try:
        with path.open("rb") as file:
            found: tuple[Any, int] | None = None
            for record in fastwarc.ArchiveIterator(file):
                if found is not None:
                    yield from _line(path, *found, record.stream_pos)
                # What is asked of a record has to be asked before the next one is read.
                found = _described(record), record.stream_pos
            whole = found is None or _is_whole(path, found[1])
            if found is not None and whole:
                yield from _line(path, *found, path.stat().st_size)
    except OSError as error:
        raise ConfigError(f"{path}: can not be read: {error.strerror or error}") from error
    return whole


def _is_whole(path: Path, offset: int) -> bool:
    """Tell whether a file ends as records do: with two line ends, in a gzip member that has its end."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    if data.startswith(_ZSTD):
        return True  # or else its reader would have failed
    text = data
    while data.startswith(_GZIP):
        member = zlib.decompressobj(wbits=_GZIP_BITS)
        text = member.decompress(data)
        data = member.unused_data
        if not member.eof:
            return False
    return text.endswith(b"\r\n\r\n") and (data is text or not data)


def _described(record: Any) -> dict[str, str] | None:
    """Return what an index says of a capture; None for a record that is none."""
    headers = record.headers
    kind, url = headers.get("WARC-Type"), headers.get("WARC-Target-URI")
    if kind not in _INDEXED or url is None:
        return None
    http = record.http_headers
    mime = "warc/revisit" if kind == "revisit" else (http and http.get("Content-Type")) or "unk"
    about = {
        "url": url,
        "mime": mime.partition(";")[0].strip(),
        "status": str(http.status_code) if http is not None else "-",
        "date": headers.get("WARC-Date", ""),
    }
    digest = headers.get("WARC-Payload-Digest")
    return about if digest is None else about | {"digest": digest}


def _line(path: Path, about: dict[str, str] | None, offset: int, end: int) -> Iterator[bytes]:
    if about is None:
        return
    moment = "".join(digit for digit in about.pop("date") if digit.isdigit())[:14]
    place = {"length": str(end - offset), "offset": str(offset), "filename": path.name}
    yield f"{surt(about['url'])} {moment} {json.dumps(about | place)}\n".encode()


def surt(url: str) -> str:
    """Return the key by which a URL is found: ``com,example)/path?a=1&b=2``, in lower case, host first and reversed."""
    try:
        parts = urlsplit(url.lower())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "".join(url.lower().split())
    name = host if host.replace(".", "").isdigit() or ":" in host else ",".join(reversed(host.split(".")))
    name = name.removesuffix(",www")
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        name += f":{port}"
    query = "&".join(sorted(parts.query.split("&"))) if parts.query else ""
    return f"{name}){parts.path.rstrip('/') or '/'}" + (f"?{query}" if query else "")
