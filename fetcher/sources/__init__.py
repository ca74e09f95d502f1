"""Where jobs come from: one module a source, added as a `Source` (`fetcher.interfaces`) by a line in `registry.py`."""
