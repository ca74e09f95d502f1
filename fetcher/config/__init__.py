"""What a batch is: the config as a whole, from a file, the environment and ``-s``, checked in advance."""

from fetcher.config.loading import load
from fetcher.config.model import Config, FailureLimit, fingerprint, parse_failures
from fetcher.config.problems import ConfigProblems
from fetcher.config.schema import json_schema

__all__ = ["Config", "ConfigProblems", "FailureLimit", "fingerprint", "json_schema", "load", "parse_failures"]
