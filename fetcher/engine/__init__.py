"""From leased jobs to results; it knows parts by `fetcher.interfaces`, so a new part changes nothing."""
