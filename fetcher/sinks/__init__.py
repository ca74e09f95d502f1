"""Where results go: one module a sink, added as a `Sink` by a line in `fetcher/registry.py`."""
