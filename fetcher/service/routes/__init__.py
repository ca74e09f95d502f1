"""The operations of the API, by what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.service.routes import batches, health, results, state, submitting

if TYPE_CHECKING:
    from fetcher.service.desk import Desk
    from fetcher.service.operations import Operation
    from fetcher.service.reception import Reception


def operations(desk: Desk, reception: Reception) -> list[Operation]:
    """Return everything that can be asked for, in the order in which people read about it."""
    return [
        submitting.operation(desk, reception),
        *batches.operations(desk),
        results.operation(desk),
        *state.operations(desk),
        *health.operations(desk),
    ]
