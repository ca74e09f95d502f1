"""What a sitemap says (sitemaps.org 0.9): XML, or text with a URL a line; and which sitemaps a robots.txt names.

Read piece by piece, and bounded: in bytes of each layer of compression, in gzip members, in depth, and in that no
entity of its own is expanded.
"""

from __future__ import annotations

import zlib
from itertools import chain
from typing import IO, TYPE_CHECKING
from xml.parsers import expat

import msgspec

from fetcher.jobs.intake import MAX_URL_LENGTH

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator

PIECE = 64 * 1024
"""Bytes that are parsed at once."""

_GZIP = b"\x1f\x8b"
_MOST_LAYERS = 2  # a file that is compressed, and sent compressed
_MOST_MEMBERS = 10_000  # of a layer; they may be empty, and then no bound on what is in them would ever be reached
_DEEPEST = 32  # levels of XML; those of a sitemap are three
_LONGEST = MAX_URL_LENGTH + 1  # characters of a field, so that a longer one is known as such
_ROOTS = {"urlset": "url", "sitemapindex": "sitemap"}
_FIELDS = frozenset({"loc", "lastmod", "changefreq", "priority"})
_LINE = 4 * _LONGEST  # bytes of a line of text, from which on it is too long in any case
_BOM = b"\xef\xbb\xbf"
# What XML may begin with: UTF-8 and what is like it, or UTF-16 (XML 1.0, appendix F).
_TELLING = 4
_XML = (b"<", b"\xff\xfe<\0", b"\xfe\xff\0<", b"\0<")


class SitemapError(ValueError):
    """It is no sitemap, or a damaged one. Reading it again would not help."""


class Entry(msgspec.Struct):
    """A URL and what is said of it; ``wrong`` is why it can not be one."""

    loc: str
    meta: dict[str, str] | None = None
    wrong: str | None = None


class SitemapFile:
    """A sitemap in blocks of bytes, gzipped or not; ``entries`` may be read once ``begin`` was called.

    Once ``stopped`` is set, whoever reads is told so by a SitemapError soon.
    """

    def __init__(
        self, blocks: Iterable[bytes], max_size: int, *, robots: bool = False, stopped: threading.Event | None = None
    ) -> None:
        def bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
            return _bounded(pieces, max_size, stopped)

        self._pieces = _unpacked(bounded(blocks), _MOST_LAYERS, bounded)
        self._parser: _Xml | _Text
        self._robots = robots
        self._first: list[Entry] = []

    @property
    def is_index(self) -> bool:
        """Whether the entries are sitemaps."""
        return self._robots or self._parser.is_index

    def begin(self) -> None:
        """Read as far as it takes to know what it is. Raises SitemapError."""
        start = b""
        for piece in self._pieces:
            start = (start + piece).removeprefix(_BOM).lstrip()
            if len(start) >= _TELLING:
                break
        if not start and not self._robots:
            raise SitemapError("is empty")
        xml = start.startswith(_XML) and not self._robots
        self._parser = _Xml() if xml else _Text(robots=self._robots)
        self._first = self._parser.feed(start)
        while not self._parser.known:
            piece = next(self._pieces, b"")
            self._first += self._parser.feed(piece) if piece else self._parser.end()

    def entries(self) -> Iterator[Entry]:
        """Yield the entries. Raises SitemapError where they can not be read on."""
        yield from self._first
        for piece in self._pieces:
            yield from self._parser.feed(piece)
        yield from self._parser.end()


class StoredSitemap(SitemapFile):
    """A sitemap that was fetched, in its file."""

    def __init__(self, file: IO[bytes], max_size: int, *, robots: bool, stopped: threading.Event | None = None) -> None:
        super().__init__(_blocks(file), max_size, robots=robots, stopped=stopped)
        self._file = file

    def close(self) -> None:
        """Close the file, which removes what was fetched."""
        self._file.close()


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(PIECE):
        yield block


class _Xml:
    """Entries out of XML. Those of other vocabularies, such as images, are not looked at."""

    def __init__(self) -> None:
        self.is_index = False
        self.known = False
        self._entries: list[Entry] = []
        self._depth = 0
        self._names: tuple[str, ...] = ()  # of the root's namespace: what an entry is called, and its fields
        self._fields: dict[str, str] | None = None
        self._field: str | None = None
        self._text = ""
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.EntityDeclHandler = self._on_entity
        parser.StartElementHandler = self._on_start
        parser.EndElementHandler = self._on_end
        parser.CharacterDataHandler = self._on_text

    def feed(self, data: bytes) -> list[Entry]:
        """Return the entries that end in a piece."""
        return self._parse(data, final=False)

    def end(self) -> list[Entry]:
        """Check that all was there."""
        return self._parse(b"", final=True)

    def _parse(self, data: bytes, *, final: bool) -> list[Entry]:
        self._entries = []
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            raise SitemapError(f"is not well-formed XML: {error}") from error
        return self._entries

    def _on_entity(self, *_: object) -> None:
        raise SitemapError("declares entities of its own, which no sitemap needs")

    def _on_start(self, name: str, _: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self._begin(name)
        elif self._depth > _DEEPEST:
            raise SitemapError(f"is nested deeper than {_DEEPEST} levels")
        elif self._depth == 2 and name == self._names[0]:  # noqa: PLR2004  root, entry, field
            self._fields = {}
        elif self._depth == 3 and self._fields is not None and name in self._names[1:]:  # noqa: PLR2004  the same
            self._field, self._text = name.rpartition(" ")[2], ""

    def _begin(self, name: str) -> None:
        namespace, space, root = name.rpartition(" ")
        if root not in _ROOTS:
            raise SitemapError(f"is neither a sitemap nor an index of them: its root is <{root[:60]}>")
        self._names = tuple(namespace + space + local for local in (_ROOTS[root], *_FIELDS))
        self.is_index = root == "sitemapindex"
        self.known = True

    def _on_text(self, text: str) -> None:
        if self._field is not None and len(self._text) < _LONGEST:
            self._text += text

    def _on_end(self, _: str) -> None:
        if self._depth == 3 and self._field is not None and self._fields is not None:  # noqa: PLR2004  as above
            self._fields[self._field] = self._text.strip()
            self._field = None
        elif self._depth == 2 and self._fields is not None:  # noqa: PLR2004  the same
            loc = self._fields.pop("loc", "")
            self._entries.append(Entry(loc, self._fields or None))
            self._fields = None
        self._depth -= 1


class _Text:
    """Entries out of lines; of a robots.txt those that name a sitemap."""

    known = True
    is_index = False

    def __init__(self, *, robots: bool) -> None:
        self._robots = robots
        self._rest = b""

    def feed(self, data: bytes) -> list[Entry]:
        """Return the entries whose lines end in a piece."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = b""
        self._rest = (self._rest + rest)[:_LINE]
        return [entry for line in lines if (entry := self._entry(line)) is not None]

    def end(self) -> list[Entry]:
        """Return the last entry, if its line has no end."""
        return self.feed(b"\n")

    def _entry(self, line: bytes) -> Entry | None:
        line = line.strip()
        if self._robots:
            name, _, line = line.partition(b"#")[0].partition(b":")
            line = line.strip() if name.strip().lower() == b"sitemap" else b""
        if not line:
            return None
        text = line[:_LINE].decode("utf-8", "backslashreplace")
        try:
            if len(line) < _LINE:  # a longer one may have been cut within a character
                line.decode()
        except UnicodeDecodeError:
            return Entry(text, wrong="not valid UTF-8")
        return Entry(text)


def _bounded(pieces: Iterable[bytes], most: int, stopped: threading.Event | None) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        if stopped is not None and stopped.is_set():
            raise SitemapError("is no longer wanted")
        size += len(piece)
        if size > most:
            raise SitemapError(f"is larger than max_size, which is {most} bytes")
        yield piece


def _unpacked(
    blocks: Iterator[bytes], layers: int, bounded: Callable[[Iterable[bytes]], Iterator[bytes]]
) -> Iterator[bytes]:
    """Yield what was compressed, told by its first bytes rather than by what anybody says of it.

    Each layer is ``bounded``: what is compressed twice may be small at both ends, and endless in between.
    """
    first = b""
    while len(first) < len(_GZIP) and (block := next(blocks, b"")):
        first += block
    whole = chain([first], blocks)
    if not first.startswith(_GZIP) or not layers:
        return whole
    return _unpacked(bounded(_inflated(whole)), layers - 1, bounded)


def _inflated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of gzip members in pieces, so that no bomb is ever held."""
    member = zlib.decompressobj(31)
    members = 1
    for block in blocks:
        data = block
        while data:
            if member.eof:
                member = zlib.decompressobj(31)
                members += 1
                if members > _MOST_MEMBERS:
                    raise SitemapError(f"consists of more than {_MOST_MEMBERS} gzip members")
            try:
                piece = member.decompress(data, PIECE)
            except zlib.error as error:
                raise SitemapError(f"is damaged: {error}") from error
            if piece:
                yield piece
            data = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise SitemapError("is damaged: its end is missing")
