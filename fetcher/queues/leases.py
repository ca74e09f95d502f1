"""Who holds what until when, for queues whose leases live in the process: deadlines and fencing."""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fetcher.interfaces import Ack, Lease, Nack

_Held = TypeVar("_Held", bound=tuple[object, ...])
_Settling = TypeVar("_Settling", "Ack", "Nack")


class LeaseTable(Generic[_Held]):
    """Leases by handle. What is held is a tuple whose first item is the handle.

    The token of a lease grows with every grant, so that a holder who comes back after its lease lapsed, and was
    given to somebody else, is recognised by its older token and refused (Kleppmann, "How to do distributed
    locking", 2016).
    """

    def __init__(self, term: float) -> None:
        self._term = term
        self._token = 0
        # In the order of their deadlines: grants and extensions both go to the end, and all terms are equal.
        self._held: OrderedDict[object, tuple[int, float, _Held]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def grant(self, items: Iterable[_Held], now: float) -> int:
        """Hold items from now on for one term; return the token."""
        self._token += 1
        deadline = now + self._term
        for item in items:
            self._held[item[0]] = (self._token, deadline, item)
        return self._token

    def holds(self, lease: Lease) -> bool:
        """Tell whether this very lease is still held."""
        entry = self._held.get(lease.handle)
        return entry is not None and entry[0] == lease.token

    def held(self, settling: Iterable[_Settling]) -> list[_Settling]:
        """Return those whose lease is still held, each once: the second end of a job is refused like any other."""
        return list({item.lease.handle: item for item in settling if self.holds(item.lease)}.values())

    def extend(self, leases: Sequence[Lease], now: float) -> int:
        """Give leases another full term; return how many are no longer held."""
        refused = 0
        for lease in leases:
            if self.holds(lease):
                token, _, item = self._held[lease.handle]
                self._held[lease.handle] = (token, now + self._term, item)
                self._held.move_to_end(lease.handle)
            else:
                refused += 1
        return refused

    def release(self, handles: Iterable[object]) -> None:
        """Let go of what is held by these handles."""
        for handle in handles:
            self._held.pop(handle, None)

    def lapsed(self, now: float) -> list[_Held]:
        """Return what is held past its deadline; it stays held until it is released."""
        past = takewhile(lambda entry: entry[1] <= now, self._held.values())
        return [item for _, _, item in past]

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()
