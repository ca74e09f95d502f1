"""Where jobs wait: one module a queue, added as a `Queue` (`fetcher.interfaces`) by a line in `registry.py`."""
