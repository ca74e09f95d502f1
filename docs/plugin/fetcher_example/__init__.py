"""Two parts for fetcher, to start a package of your own from."""
