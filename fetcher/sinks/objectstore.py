"""Objects in S3, Google Cloud Storage, Azure, or a folder. Needs the extra ``objectstore`` (obstore).

    s3://bucket/crawl/pages.jsonl.zst/part-00001-9f86d081.jsonl.zst
                                      part-00002-9f86d081.jsonl.zst

Each batch that the sink is given is an object, whole in itself, named by the run and its number in that run; so
``batch:`` says how large objects are and how long a record waits for the others of its object. A job is acknowledged
when its object is in the store. After a crash, objects that were not acknowledged are deleted and written again under
the same names.

An object is put by a single request, which the store takes whole or not at all: there are no multipart uploads that a
crash could leave behind, to be paid for and seen by nobody. In turn an object is in memory while it is written.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import unquote

import msgspec
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError, FetcherError, SinkError, StateError
from fetcher.extras import load_extra
from fetcher.registry import COMPRESSIONS, Part, format_of, parts
from fetcher.settings import Duration, Secret, Settings
from fetcher.sink_settings import SinkBatchSettings, SinkSettings
from fetcher.sinks.remote import away, new_run, shown
from fetcher.sinks.writing import OwnThread
from fetcher.stores import StorePanicError, client, no_panics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import SecretStr

    from fetcher.interfaces import Format
    from fetcher.model import Result

_URL = re.compile(r"(s3|gs|az|file)://([^/?#]*)/([^?#]*[^/?#])")
_PART = re.compile(r"part-(\d{5,})-([0-9a-f]{8})\.[a-z.]+")
_QUERY = re.compile(r"\?\S+")  # in which Azure has signatures
_STATUS = re.compile(r"status code: (\d{3})")
_SAID = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>")
_REFUSED = frozenset({"400", "401", "403"})
_MACHINE = "//169.254.169.254/"  # where a machine of a cloud is asked for its role
_PROBE = "_check"
_USER = "the sink objectstore"
_RUN_LENGTH = 8
# For the hiccup of a moment. What takes longer is the delivery's to wait for.
_RETRIES = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
}


class ObjectStoreConfig(SinkSettings):
    """Records in objects of a store, one for each batch."""

    extras: ClassVar[tuple[str, ...]] = ("objectstore",)
    type: Literal["objectstore"] = "objectstore"
    path: str
    """The folder of objects, as ``s3://bucket/pages.jsonl.zst``; ``gs://bucket/...``, ``az://container/...`` and
    ``file:///folder/...`` are written in the same way."""
    format: Annotated[Settings, Part("formats")] = Field(default=None, validate_default=True)
    """How records are written; by default, what the suffixes of ``path`` say, such as ``.csv.zst``."""
    options: dict[str, Secret] = Field(default={})
    """What the store has to know, by the names that obstore has for it, such as ``region``, ``endpoint``,
    ``access_key_id``, ``secret_access_key``; otherwise the environment and the machine's own role say it."""
    if_exists: Literal["fail", "replace", "append"] = "fail"
    """What becomes of objects that are in the folder when a batch begins and are not of an earlier run of it."""
    timeout: Annotated[Duration, Field(gt=0)] = 120.0
    """How long a request may take, the upload of a whole object included."""
    batch: SinkBatchSettings | None = SinkBatchSettings(linger=30.0)
    """How large objects are, and how long a record waits for others: see ``batch`` of every sink."""

    @field_validator("path")
    @classmethod
    def _is_url(cls, path: str) -> str:
        match = _URL.fullmatch(path)
        if match is None or (not match[2]) != (match[1] == "file") or ".." in match[3].split("/"):
            words = (
                "should be like s3://bucket/folder/pages.jsonl, with s3, gs, az or file (file:///folder/pages.jsonl)"
            )
            raise PydanticCustomError("objects", words)
        return path

    @field_validator("format", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        if "path" in info.data:
            return format_of(info.data["path"], value)
        # Without a path the config is refused anyway, and nothing is to be said about its format.
        return next(iter(parts("formats"))) if value is None else value

    def build(self) -> ObjectStoreSink:
        """Return the sink, not yet connected."""
        form: Any = self.format
        return ObjectStoreSink(
            self.path, form.build(), options=self.options, if_exists=self.if_exists, timeout=self.timeout
        )


class ObjectMark(msgspec.Struct, frozen=True):
    """The run, by which its objects are known, and the number of the last one that it has written."""

    run: str
    number: int = 0


class ObjectStoreSink:
    """Puts an object for each batch; encodes it on a thread of its own."""

    def __init__(
        self,
        path: str,
        form: Format,
        *,
        options: Mapping[str, SecretStr] | None = None,
        if_exists: str = "fail",
        timeout: float = 120.0,
    ) -> None:
        self._path = path
        self._format = form
        self._options = options or {}
        self._if_exists = if_exists
        self._timeout = timeout
        self._folder, self._suffix = "", _suffix(path)
        self._store: Any = None
        self._local: Path | None = None
        self._obstore: Any = None
        self._mark = ObjectMark("")
        self._thread = OwnThread("objectstore sink")

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Prove that objects can be listed, written and deleted, by an empty one that is gone again afterwards."""
        await self._thread.run(self._check, self._decoded(mark), resume)

    async def discard(self, mark: str) -> None:
        """Delete the objects of an earlier run."""
        await self._thread.run(self._discard, self._decoded(mark))

    async def open(self, mark: str | None) -> str:
        """Delete what was written after ``mark``, or what is to be replaced."""
        await self._thread.run(self._open, self._decoded(mark))
        return msgspec.json.encode(self._mark).decode()

    async def write(self, results: Sequence[Result]) -> str:
        """Put results as one object; the same results again have the same name, and take its place."""
        await self._thread.run(self._write, results)
        return msgspec.json.encode(self._mark).decode()

    async def close(self) -> None:
        """Release the connections."""
        self._store = None
        self._thread.close()

    def _decoded(self, mark: str | None) -> ObjectMark | None:
        try:
            return msgspec.json.decode(mark, type=ObjectMark) if mark is not None else None
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._path}: which objects are this batch's own was recorded in a way unknown here ({error}); "
                "delete them and start over with --fresh"
            ) from error

    # What follows runs on the sink's thread. Not obstore's own asyncio: its threads, which come back to Python after
    # an answer, abort a process that is just ending.

    def _check(self, mark: ObjectMark | None, resume: bool) -> None:  # noqa: FBT001  handed on by position
        with self._refusing(resume=resume):
            self._connect()
            names = self._names()
            self._probe()
        if resume and mark is not None:
            self._recognise(names, mark)
        elif self._if_exists == "fail" and any(_run(name) != (mark and mark.run) for name in names):
            raise ConfigError(
                f"{self._path}: there are objects that no earlier run of this batch wrote; delete them, choose another "
                "path, set 'if_exists: append' or 'if_exists: replace', or start over with --fresh"
            )

    def _discard(self, mark: ObjectMark) -> None:
        with self._refusing(resume=False):
            self._connect()
            self._delete([name for name in self._names() if _run(name) == mark.run])
            self._delete_unfinished(mark)

    def _open(self, mark: ObjectMark | None) -> None:
        with self._refusing(resume=mark is not None):
            self._connect()
            names = self._names()
            if mark is not None:
                self._recognise(names, mark)
                self._delete([name for name in names if _run(name) == mark.run and _number(name) > mark.number])
                self._delete_unfinished(mark)
            elif self._if_exists == "replace":
                self._delete([name for name in names if _run(name)])
        self._mark = mark or ObjectMark(new_run()[:_RUN_LENGTH])

    def _write(self, results: Sequence[Result]) -> None:
        if self._store is None:
            raise SinkError(f"{self._path}: is not open")
        mark = ObjectMark(self._mark.run, self._mark.number + 1)
        data = self._format.begin() + self._format.encode(results)
        try:
            with no_panics():
                self._put(f"part-{mark.number:05d}-{mark.run}{self._suffix}", data)
        except Exception as error:
            raise self._failure(error) from error
        self._mark = mark

    def _recognise(self, names: Sequence[str], mark: ObjectMark) -> None:
        """Raise StateError unless the last object that was acknowledged is there."""
        if mark.number and not any(_run(name) == mark.run and _number(name) == mark.number for name in names):
            raise StateError(
                f"{self._path}: has no object {mark.number} of this batch, which was recorded as written; "
                "put it back, or start over with --fresh"
            )

    # The store

    def _connect(self) -> None:
        """Make a client, which connects when it is asked for something. Raises MissingExtraError or ConfigError."""
        if self._store is not None:
            return
        self._obstore = load_extra("obstore", "objectstore", _USER)
        stores = load_extra("obstore.store", "objectstore", _USER)
        match = _URL.fullmatch(self._path)
        scheme, bucket, key = match.groups() if match else ("", "", "")
        try:
            if scheme == "file":
                self._local = Path("/", unquote(key))
                self._store, self._folder = stores.LocalStore(str(self._local), mkdir=True), ""
                return
            limits = {"connect_timeout": "10s", "timeout": timedelta(seconds=self._timeout)}
            self._store = client(
                scheme, bucket, self._options, user=_USER, client_options=limits, retry_config=_RETRIES
            )
            self._folder = f"{key}/"
        except (self._obstore.exceptions.BaseError, ValueError, TypeError, OSError, StorePanicError) as error:
            raise ConfigError(f"{self._path}: can not be used: {_words(error)}") from error

    def _names(self) -> list[str]:
        """Return the names of the objects that are in the folder."""
        pages = self._obstore.list(self._store, self._folder or None)
        names = [meta["path"][len(self._folder) :] for page in pages for meta in page]
        return [name for name in names if name != _PROBE]

    def _put(self, name: str, data: bytes) -> None:
        self._obstore.put(self._store, self._folder + name, data, use_multipart=False)

    def _delete(self, names: Sequence[str]) -> None:
        if names:
            self._obstore.delete(self._store, [self._folder + name for name in names])

    def _delete_unfinished(self, mark: ObjectMark) -> None:
        """Delete what a crash has left of objects in a folder: they are written as ``part-...#1`` and then renamed."""
        if self._local is None:
            return
        for found in self._local.glob("part-*#*"):
            name, _, number = found.name.partition("#")
            if number.isdecimal() and _run(name) == mark.run:
                found.unlink(missing_ok=True)

    def _probe(self) -> None:
        self._put(_PROBE, b"")
        self._delete([_PROBE])

    # Errors

    @contextmanager
    def _refusing(self, *, resume: bool) -> Iterator[None]:
        """Turn what the store says before a batch begins or goes on into errors that say what to do."""
        try:
            with no_panics():
                yield
        except FetcherError:
            raise
        except Exception as error:
            advice = self._advice(error)
            if advice is None:
                raise away(self._path, _words(error), resume=resume) from error
            raise ConfigError(f"{self._path}: {advice}: {_words(error)}") from error

    def _failure(self, error: Exception) -> SinkError:
        advice = self._advice(error)
        if advice is None:
            return SinkError(f"{self._path}: {_words(error)}", retryable=True)
        return SinkError(f"{self._path}: {advice}: {_words(error)}")

    def _advice(self, error: Exception) -> str | None:
        """Return what is wrong for good; None if the same may succeed later."""
        exceptions = self._obstore.exceptions
        status = _STATUS.search(str(error))  # a listing has no other way to say it
        code = status and status[1]
        if isinstance(error, FileNotFoundError) or code == "404":
            return "there is no such bucket; create it, or name another"
        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError) or code in _REFUSED:
            return "the store refuses these credentials to list, write or delete here; check options and rights"
        if isinstance(error, exceptions.NotSupportedError | exceptions.InvalidPathError):
            return "the store can not do this"
        return None if isinstance(error, exceptions.BaseError | OSError) else "this was not to be expected"


def _run(name: str) -> str | None:
    """Return which run an object is of, None if it is not one of ours."""
    match = _PART.fullmatch(name)
    return match and match[2]


def _number(name: str) -> int:
    match = _PART.fullmatch(name)
    return int(match[1]) if match else 0


def _suffix(path: str) -> str:
    """Return the suffix of the name that a path ends in, compression included."""
    suffixes = [suffix for suffix in PurePosixPath(path.lower()).suffixes if re.fullmatch(r"\.[a-z]+", suffix)]
    return "".join(suffixes[-2:] if suffixes[-1:] and suffixes[-1] in COMPRESSIONS else suffixes[-1:]) or ".data"


def _words(error: Exception) -> str:
    """Return what a store says, without the dump of its insides that a driver adds."""
    text = str(error)
    said = _SAID.search(text)
    if said is not None:
        return shown(f"{said[1]}: {said[2]}")
    if _MACHINE in text:
        return "there are no credentials in options or environment, and the machine has none"
    line = _QUERY.sub("?...", text.partition("\n")[0])
    # Before it stands which request it was, how long it took and how often it was tried.
    reason = line.partition(" - ")[2] if "Error performing" in line else line
    return shown(reason or line) or type(error).__name__
