"""ftp and ftps (RFC 959, 2228, 2389, 2428, 2640, 3659, 4217): files and listings.

    targets.py     what a URL asks for
    logins.py      as whom
    connecting.py  from nothing to a connection that is logged in
    control.py     the commands that go by it; replies.py: what is answered
    pool.py        connections that are idle
    data.py        a transfer: the other connection, and whether it was whole
    listings.py    a listing as JSON; entries.py: its lines
    resuming.py    what can be gone on with
    fetch.py       one job over these
    transport.py   all of them

There is no client library below it: those for asyncio connect by themselves, past resolver and guard, read replies
without a bound, and take the end of the data for the end of the file.
"""
