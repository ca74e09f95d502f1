"""fetcher: fetch very many URLs; nothing lost and provably so, polite, trustworthy, fast."""

from fetcher.assembly import Batch
from fetcher.config import Config, load
from fetcher.errors import (
    ConfigError,
    ErrorKind,
    FetcherError,
    FetchError,
    SinkError,
    SourceError,
    StateError,
)
from fetcher.interfaces import Format, Queue, Sink, Source, Transport
from fetcher.model import Job, Outcome, Response, Result

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Config",
    "ConfigError",
    "ErrorKind",
    "FetchError",
    "FetcherError",
    "Format",
    "Job",
    "Outcome",
    "Queue",
    "Response",
    "Result",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "StateError",
    "Transport",
    "load",
]
