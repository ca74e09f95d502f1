"""What an earlier run fetched: asked for only if it has changed, or gone on with."""
