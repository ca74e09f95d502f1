"""From results to sinks and acks; it knows sinks by `fetcher.interfaces`, and no new one changes it."""
