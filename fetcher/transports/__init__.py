"""How jobs are fetched: one module or folder each, added as a `Transport` in `fetcher/registry.py`."""
