"""A test origin: a raw HTTP/1.1 server made to be faster than any client that is measured against it.

    server        Origin: what listens, and what its connections share
    connection    one client's bytes in, requests answered in their order, bytes out
    parsing       header blocks, bodies and requests
    routes        the table of answers; a new one is a method of Routes and a row
    replies       an answer as bytes on the wire
    bodies        the content that answers send
    tables        small bounded tables of what clients repeat
    access_log    what was asked, as JSON lines
    sockets       what is served beside http, each by a module of its own: echoes and lines over streams (TCP),
                  datagrams (UDP), websockets

What a client repeats is looked up, not computed: header blocks and whole responses sit in small bounded
tables, so a keep-alive `GET /bytes/1024` costs two finds, two slices and two look-ups, and a batch one write.
"""

from fetcher.origin.server import Origin, OriginConfig, run, serve

__all__ = ["Origin", "OriginConfig", "run", "serve"]
