"""Standard output, for pipes."""

from __future__ import annotations

from typing import Literal

from fetcher.settings import Settings


class StdoutConfig(Settings):
    """Records written to standard output."""

    type: Literal["stdout"] = "stdout"
