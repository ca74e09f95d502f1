"""What can be wrong with a measurement.

FetcherError
├── PlanError            options that make no sense                             exit 2
├── RefusedError         a target that is not the user's own                    exit 2
├── UnreachableError     a target that does not answer at all                   exit 3
└── ReportError          a report that can not be written                       exit 1
"""

from __future__ import annotations

from fetcher.errors import FetcherError


class PlanError(FetcherError):
    """What was asked for can not be measured."""

    exit_code = 2


class RefusedError(FetcherError):
    """The target is not loopback or private, and nobody said that it may be loaded. Nothing was sent."""

    exit_code = 2


class UnreachableError(FetcherError):
    """There is no answer from the target, so there is nothing to measure."""

    exit_code = 3


class ReportError(FetcherError):
    """The figures are there, but not in the file that was asked for."""

    exit_code = 1
