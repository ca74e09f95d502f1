"""What is seen of the service: snapshots for the page, metrics, traces, and what bounds the throughput."""
