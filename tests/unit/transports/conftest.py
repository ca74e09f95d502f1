from __future__ import annotations

from copy import copy
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, patch

import pytest
from aioresponses import aioresponses, core

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    """The answers of ``ClientSession.request``, without any network.

    Two bridges, to be removed when aioresponses does without: 0.7.9 builds the ClientResponse of aiohttp
    before 3.14, which has no ``stream_writer``; and it makes a deep copy of whatever is passed to a request,
    of our trace too, which leads to the event loop.
    """
    build = core.RequestMatch._build_response

    def bridged(match: Any, *args: Any, **kwargs: Any) -> Any:
        wanted = kwargs.get("response_class") or core.ClientResponse
        kwargs["response_class"] = partial(wanted, stream_writer=Mock(output_size=0))
        return build(match, *args, **kwargs)

    with (
        patch.object(core.RequestMatch, "_build_response", bridged),
        patch.object(core, "copy", SimpleNamespace(deepcopy=copy)),
        aioresponses() as mock,
    ):
        yield mock
