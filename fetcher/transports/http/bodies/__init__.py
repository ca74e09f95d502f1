"""Bodies: read, decoded, capped, hashed, kept in the record or in a file, and known again in the next run."""
