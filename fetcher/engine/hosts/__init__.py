"""What is known of each host, and what it may be asked for: limits, turns, and what its answers tell. Pure."""
