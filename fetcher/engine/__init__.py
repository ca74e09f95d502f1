"""From leased jobs to results; knows parts by `fetcher.interfaces` only, so a new part changes nothing here."""
