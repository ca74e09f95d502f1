"""ftp and ftps (RFC 959, 2228, 2389, 2428, 2640, 3659, 4217): files and listings.

    targets.py    what a URL asks for
    logins.py     as whom
    control.py    a connection that commands go by; replies.py: what it answers
    pool.py       those that are idle, logged in
    data.py       a transfer: the other connection, and whether it was whole
    listings.py   lines of a listing -> JSON
    fetch.py      one job over these
    transport.py  all of them

There is no client library below it: those for asyncio connect by themselves, past resolver and guard, read replies
without a bound, and take the end of the data for the end of the file.
"""
