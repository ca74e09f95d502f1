"""What bounds the throughput of a process right now, and what to change: asked by `fetcher why`."""
