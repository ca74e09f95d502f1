"""Where jobs wait: one module a queue, added as a `Queue` by a line in `fetcher/registry.py`."""
