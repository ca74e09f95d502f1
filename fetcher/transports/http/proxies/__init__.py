"""Proxies: which one a request goes by, and how a connection leads through it."""
