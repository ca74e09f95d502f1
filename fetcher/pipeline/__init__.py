"""From results to sinks and acknowledgements; knows parts by `fetcher.interfaces` only, as the engine does."""
