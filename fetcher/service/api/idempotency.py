"""``Idempotency-Key``: a submission that is repeated until there is an answer is taken once.

The id of its batch is made from the key, so that whoever knows the batches knows the keys. What was submitted is told
by a comment at the end of its config: a key that comes again with something else is a mistake, not a repetition.
"""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from fetcher.service.api.problems import ProblemError

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

PATTERN = r"^[!-~]{1,255}$"
"""What a key may be."""
_NAME = "Idempotency-Key"
_COMMENT = "# submission "
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE = 100
# Of a hash. Where the key is there as it is, nothing but the name of the token has to be told apart by it.
_FEW_DIGITS, _MANY_DIGITS = 8, 32


def batch_id(request: web.Request, whose: str) -> str | None:
    """Return the id that belongs to the key of a submission, None if it has none. Keys of others are other keys."""
    keys = request.headers.getall(_NAME, [])
    if not keys:
        return None
    if len(keys) > 1 or not re.fullmatch(PATTERN, keys[0]):
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"{_NAME} should be up to 255 visible ASCII characters, once")
    both = f"{whose}\n{keys[0]}"
    # It begins with what the client has chosen, so that people know their batches by it.
    readable = _UNFIT.sub("-", keys[0][:_READABLE]).strip("._-")
    digits = _FEW_DIGITS if readable == keys[0] else _MANY_DIGITS
    return f"{readable or 'key'}-{hashlib.sha256(both.encode()).hexdigest()[:digits]}"


def signed(config: str, upload: Path | None) -> str:
    """Return a config with what tells this submission from others. Reads the upload."""
    digest = hashlib.sha256(config.encode())
    if upload is not None:
        with upload.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest() + upload.suffix.encode())
    return f"{config}\n{_COMMENT}{digest.hexdigest()}\n"


def check_same(config: str, taken: str) -> None:
    """Raise ProblemError if the config of the batch that was taken is of another submission than this signed one."""
    if _signature(config) != _signature(taken):
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"something else was submitted with this {_NAME} before")


def _signature(config: str) -> str:
    return config.rpartition(_COMMENT)[2].strip()
