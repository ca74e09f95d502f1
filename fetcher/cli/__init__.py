"""The commands of `fetcher`: one module a command, added by a line in `app.py`."""
