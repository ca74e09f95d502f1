"""Where jobs come from: one module a source, added as a `Source` by a line in `fetcher/registry.py`."""
