"""What becomes of results before the sinks get them: one module a stage, a line each in `fetcher/registry.py`."""
