"""Batches from being submitted to being forgotten: what they may do, where they are kept, how they run."""
