"""How a job is fetched: one module or folder a transport, added as a `Transport` by a line in `registry.py`."""
