"""The heads of the frames that a server sends (RFC 6455, section 5.2). Pure: bytes in, a verdict out."""

from __future__ import annotations

_FIXED = 2
_MASKED = 0x80
# What stands for a length that follows, and in how many bytes that does.
_FOLLOWING = {126: 2, 127: 8}


class FrameHeads:
    """Finds the heads of frames in what arrives, however it is cut up: the parser does not tell what is in them."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._payload = 0  # what is still to come of the frame that has begun

    def masked(self, data: bytes) -> bool:
        """Take what comes next, and tell whether a frame is masked: a client must not accept that (section 5.1)."""
        at, head = 0, self._head
        while at < len(data):
            if self._payload:
                step = min(self._payload, len(data) - at)
                self._payload -= step
                at += step
                continue
            head.append(data[at])
            at += 1
            if len(head) >= _FIXED and self._ends():
                return True
        return False

    def _ends(self) -> bool:
        """Note the length if the head is whole; tell whether it is one of a masked frame."""
        head = self._head
        if head[1] & _MASKED:
            return True
        following = _FOLLOWING.get(head[1], 0)
        if len(head) == _FIXED + following:
            self._payload = int.from_bytes(head[_FIXED:]) if following else head[1]
            head.clear()
        return False
