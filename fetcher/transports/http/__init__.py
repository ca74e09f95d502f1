"""The transport for http and https: `transport.py` fetches a job in hops, each other module is a step of a hop."""
