"""The parts of an absolute URL that was checked already, cut out of it: parsing it again would cost each hop more."""

from __future__ import annotations


def origin_and_target(url: str) -> tuple[str, str]:
    """Return scheme and authority, and the path with the query as a request line has it (RFC 9112, section 3.2.1)."""
    start = url.index("://") + 3
    end = min((at for at in (url.find("/", start), url.find("?", start)) if at >= 0), default=len(url))
    target = url[end:]
    return url[:end], target if target.startswith("/") else f"/{target}"


def host_of(url: str) -> str:
    """Return the host in lower case, without port, brackets and the dot that ends a full name."""
    authority = origin_and_target(url)[0].partition("://")[2].rpartition("@")[2]
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower().rstrip(".")
