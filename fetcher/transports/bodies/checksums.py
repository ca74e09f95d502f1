"""What a body hashes to: always SHA-256, for the record, and what its job says that it has to be."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from fetcher.model import Response

_REDIRECTION = 300
_NOT_MODIFIED = 304


class Digest(Protocol):
    """Hashes a body while it arrives."""

    def update(self, data: bytes, /) -> None:
        """Take the next piece."""
        ...

    def hexdigest(self) -> str:
        """Return the SHA-256 of what came so far."""
        ...


class CheckedDigest:
    """A SHA-256, and beside it the hash that a job's checksum is one of (``sha1:9f8...``)."""

    def __init__(self, checksum: str) -> None:
        self._algorithm, _, self._expected = checksum.partition(":")
        self._sha256 = hashlib.sha256()
        same = self._algorithm == "sha256"
        self._other = self._sha256 if same else hashlib.new(self._algorithm, usedforsecurity=False)

    def update(self, data: bytes, /) -> None:
        """Take the next piece."""
        self._sha256.update(data)
        if self._other is not self._sha256:
            self._other.update(data)

    def hexdigest(self) -> str:
        """Return the SHA-256 of what came so far."""
        return self._sha256.hexdigest()

    def verify(self, *, resumed: bool) -> None:
        """Raise FetchError if this is not the body that was asked for.

        One that was put together over several attempts may be of several versions: it counts as incomplete, which is
        tried again from its first byte on.
        """
        found = self._other.hexdigest()
        if found == self._expected:
            return
        message = f"the body hashes to {self._algorithm}:{found}, and its job asks for {self._expected}"
        if resumed:
            raise FetchError(ErrorKind.BODY_INCOMPLETE, f"{message}; what was resumed is not one body")
        raise FetchError(ErrorKind.CHECKSUM_MISMATCH, message)


def digest_for(checksum: str | None, response: Response) -> Digest:
    """Return what hashes a body. A checksum is that of the body as it is kept, with its codings taken off.

    An answer that is a failure by its status is not held to it. One that would be none but brings no body is: a 304 to
    a condition of the user's own, or an answer to HEAD. Nothing can be said of what did not arrive.
    """
    status = response.status or 0
    if checksum is None or (status >= _REDIRECTION and status != _NOT_MODIFIED):
        return hashlib.sha256()
    return CheckedDigest(checksum)


def verify(digest: Digest, *, resumed: bool = False) -> None:
    """Raise FetchError if the job has a checksum, and the body is not of it."""
    if isinstance(digest, CheckedDigest):
        digest.verify(resumed=resumed)
