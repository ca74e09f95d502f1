"""How results become bytes: one module a format, added as a `Format` by a line in `registry.py`."""
