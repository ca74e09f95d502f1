"""http and https: `transport.py` is the part in the registry, other modules are steps of a fetch."""
