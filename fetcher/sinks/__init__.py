"""Where results go: one module a sink, added as a `Sink` (`fetcher.interfaces`) by a line in `registry.py`."""
