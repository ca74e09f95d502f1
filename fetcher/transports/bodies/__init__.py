"""Bodies: read, decoded, capped, hashed, and kept in the record or in a file."""
