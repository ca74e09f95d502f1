"""The API that is like those of weather services, over real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from fetcher.origin import routes as routes_module
from fetcher.origin.weather import weather

if TYPE_CHECKING:
    from unit.origin.wire_client import Client


@pytest.mark.parametrize("city", ["Berlin", "São Paulo", "Trinidad & Tobago", 'The "City"', "a=b;c#d/e?f", "日本"])
async def test_the_weather_of_a_city_is_always_the_same(client: Client, city: str) -> None:
    for _ in range(2):
        answer = await client.get(f"/weather?units=metric&appid=k&q={quote(city, safe='')}")
        assert (answer.status, answer.get("content-type")) == (200, "application/json")
        assert json.loads(answer.body) == weather(city, metric=True)
    assert json.loads(answer.body)["name"] == city
    kelvin = json.loads((await client.get(f"/weather?appid=k&q={quote(city, safe='')}")).body)["main"]["temp"]
    assert kelvin == pytest.approx(json.loads(answer.body)["main"]["temp"] + 273.15)


async def test_without_a_key_there_is_none(client: Client) -> None:
    assert (await client.get("/weather?q=Berlin")).status == 401
    assert (await client.get("/weather?q=Berlin&appid=")).status == 401
    assert (await client.get("/weather?q=Berlin", "X-API-Key: k")).status == 200
    assert (await client.get("/weather?appid=k")).status == 400
    assert (await client.get("/weather?appid=k&q=x&limit=many")).status == 400


async def test_past_the_limit_of_a_key_is_429_and_says_how_much_is_left(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(routes_module, "monotonic", lambda: now[0])

    async def ask(key: str) -> tuple[int, str | None, str | None]:
        answer = await client.get(f"/weather?q=Berlin&appid={key}&limit=2")
        return answer.status, answer.get("x-ratelimit-remaining"), answer.get("x-ratelimit-reset")

    assert [await ask("k") for _ in range(3)] == [(200, "1", "1"), (200, "0", "1"), (429, "0", "1")]
    assert await ask("other") == (200, "1", "1")
    now[0] += 0.99
    assert (await ask("k"))[0] == 429
    now[0] += 0.01
    assert await ask("k") == (200, "1", "1")
