"""An API such as those of weather services: a key in the query, a limit on requests, and JSON that never changes."""

from __future__ import annotations

import json
from hashlib import sha256
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from fetcher.origin.parsing import BadRequestError, number
from fetcher.origin.replies import Reply
from fetcher.origin.tables import remember

if TYPE_CHECKING:
    from fetcher.origin.parsing import Request

_PERIOD = 1.0
_LONGEST_NAME = 200
_SKIES = ("clear sky", "few clouds", "overcast clouds", "light rain", "thunderstorm", "snow", "mist")
_KELVIN = 273.15


class Weather:
    """Answers by city. Each key may ask ``limit`` times in a second, counted from its first request on."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}

    def answer(self, request: Request, now: float) -> Reply:
        """Return the weather of ``q``; 401 without a key in ``appid`` or in X-API-Key, 429 past ``limit``."""
        args = {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
        key = args.get("appid") or request.head.get("x-api-key")
        if not key:
            return _reply(401, {"cod": 401, "message": "Invalid API key"})
        headers: tuple[str, ...] = ()
        if "limit" in args:
            allowed, headers = self._count(key, number(args["limit"]), now)
            if not allowed:
                return _reply(429, {"cod": 429, "message": "limit exceeded"}, headers)
        city = args.get("q", "")
        if not city or len(city) > _LONGEST_NAME:
            raise BadRequestError("q should name a city")
        return _reply(200, weather(city, metric=args.get("units") == "metric"), headers)

    def _count(self, key: str, limit: int, now: float) -> tuple[bool, tuple[str, ...]]:
        since, count = self._windows.get((key, limit), (now, 0))
        if now - since >= _PERIOD:
            since, count = now, 0
        remember(self._windows, (key, limit), (since, count + 1))
        left, seconds = max(0, limit - count - 1), ceil(since + _PERIOD - now)
        named = {"Limit": limit, "Remaining": left, "Reset": seconds}
        return count < limit, tuple(f"X-RateLimit-{name}: {value}" for name, value in named.items())


def weather(city: str, *, metric: bool) -> dict[str, object]:
    """Return the weather of a city, which its name alone decides. Temperatures are in Kelvin unless ``metric``."""
    seed = sha256(city.encode("utf-8", "surrogatepass")).digest()
    celsius = (int.from_bytes(seed[:2], "big") % 700 - 250) / 10
    return {
        "name": city,
        "main": {"temp": celsius if metric else round(celsius + _KELVIN, 2), "humidity": seed[2] % 101},
        "weather": [{"description": _SKIES[seed[3] % len(_SKIES)]}],
    }


def _reply(status: int, document: object, headers: tuple[str, ...] = ()) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers, kind="application/json")
