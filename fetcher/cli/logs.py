"""The log: JSON lines on stderr, of libraries as well as of our own.

Everything that is not ASCII is escaped, so that nothing that a server sends reaches a terminal (F102).
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from typing import Any

import structlog

_LONGEST = 2000
_USERINFO = re.compile(r"(://)[^\s/?#]*@")


def configure_logging() -> None:
    """Write log events as JSON lines to stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryHandler) for handler in root.handlers):
        root.addHandler(LibraryHandler(logging.WARNING))


class LibraryHandler(logging.Handler):
    """Says what a library logs as an event ``library_log``, with the name of its logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        fields: dict[str, Any] = {"logger": record.name, "message": _shown(record.getMessage())}
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields["exception"] = _shown("".join(traceback.format_exception(record.exc_info[1])))
        log = structlog.get_logger()
        (log.error if record.levelno >= logging.ERROR else log.warning)("library_log", **fields)


def _shown(text: str) -> str:
    """Return text without passwords in URLs; of a long one, the end, where a traceback has its reason."""
    return _USERINFO.sub(r"\1***@", text)[-_LONGEST:]
