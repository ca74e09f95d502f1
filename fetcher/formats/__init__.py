"""How results become bytes: one module each, added as a `Format` by a line in `fetcher/registry.py`."""
