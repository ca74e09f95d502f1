"""``python -m fetcher``."""

from __future__ import annotations

import sys

from fetcher.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
