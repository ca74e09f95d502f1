"""Proxies: which one a request goes by, and which of them rest because they can not be reached.

    hop -> exempt? -> the next proxy that does not rest -> exchange -> answer, or another proxy at once

What a proxy says in its own name is never taken for the answer of an origin: 407 is kind ``proxy_auth``, and a refused
tunnel ``proxy_refused``. Of a request for http, which a proxy passes on, a 502 may be either's. It is the proxy's if
its entry of ``Proxy-Status`` names an error (RFC 9209, section 2.1.1), and is taken for the origin's otherwise.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal, Self
from urllib.request import getproxies_environment

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError, ErrorKind, FetchError
from fetcher.settings import Duration, Secret, Settings
from fetcher.transports.http.exchange import USUAL_LANE
from fetcher.transports.http.origins import host_of
from fetcher.transports.http.proxies.addresses import Exemptions, ProxyAddress, parse_proxy
from fetcher.transports.http.proxies.rotation import Proxy, Rotation
from fetcher.transports.http.proxies.tunnels import wants_credentials
from fetcher.transports.watchdog import Phase

if TYPE_CHECKING:
    from fetcher.transports.http.exchange import Answer, Exchange, Hop
    from fetcher.transports.http.tracing import HopTrace

_AUTHENTICATION_REQUIRED = 407
_FIRST_ERROR = 400
_ENVIRONMENT = "env"
_LONGEST_WAIT = 60.0
_ERROR = re.compile(r";\s*error=([a-z0-9_]{1,60})")


def _is_proxy(value: SecretStr) -> SecretStr:
    """Refuse what is no URL of a proxy, without showing it: it may have a password."""
    if value.get_secret_value() != _ENVIRONMENT:
        try:
            parse_proxy(value.get_secret_value())
        except ValueError as error:
            raise PydanticCustomError("proxy", "{words}", {"words": str(error)}) from None
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str | SecretStr) else value


def _exemption(value: str) -> str:
    try:
        Exemptions([value])
    except ValueError as error:
        raise PydanticCustomError("no_proxy", "{words}", {"words": str(error)}) from None
    return value


ProxyUrl = Annotated[SecretStr, AfterValidator(_is_proxy)]
Exemption = Annotated[str, AfterValidator(_exemption)]


class ProxySettings(Settings):
    """By which proxies requests go. A text or a list is its ``urls``."""

    urls: Annotated[list[ProxyUrl], BeforeValidator(_as_list, json_schema_input_type=SecretStr | list[SecretStr])] = (
        Field(min_length=1)
    )
    """``http://`` and ``https://`` (TLS to the proxy), ``socks5://``, and ``socks5h://``, which resolves names itself.
    The word ``env`` stands for HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, which are not looked at otherwise."""
    username: Secret | None = None
    """For all of them, where a URL has none of its own."""
    password: Secret | None = None
    no_proxy: list[Exemption] = Field(default=[])
    """What is asked directly: hosts, which stand for those below them, too, addresses, and networks (10.0.0.0/8)."""
    rotation: Literal["round_robin", "least_used"] = "round_robin"
    """``least_used`` takes the one by which the fewest requests wait for an answer."""
    max_rest: Annotated[Duration, Field(gt=0)] = 60.0
    """A proxy that can not be reached rests for a second, then two, and so on, but no longer than this."""

    @model_validator(mode="after")
    def _the_environment_alone(self) -> Self:
        if len(self.urls) > 1 and any(url.get_secret_value() == _ENVIRONMENT for url in self.urls):
            raise PydanticCustomError("proxy", "env stands alone; take it or name proxies, not both")
        return self

    @property
    def has_socks(self) -> bool:
        """Whether one of them is a SOCKS proxy, as far as this says."""
        return any(url.get_secret_value().lower().startswith("socks") for url in self.urls)


def _in_full(value: object) -> object:
    """Return what a proxy written as a text, or proxies written as a list, stand for."""
    return {"urls": value} if isinstance(value, str | SecretStr | list) else value


ProxySection = Annotated[
    ProxySettings | None,
    BeforeValidator(_in_full, json_schema_input_type=ProxySettings | SecretStr | list[SecretStr] | None),
]
"""A ``ProxySettings`` as it may be written."""


class Proxies:
    """The proxies of a transport: a rotation for each scheme of a target, and what needs none.

    Raises ConfigError if what the environment says can not be used.
    """

    def __init__(self, settings: ProxySettings) -> None:
        urls = [url.get_secret_value() for url in settings.urls]
        exempt = list(settings.no_proxy)
        if urls == [_ENVIRONMENT]:
            self._rotations, more = _of_environment(settings)
            exempt += more
        else:
            proxies = [Proxy(_with_credentials(parse_proxy(url), settings)) for url in urls]
            rotation = Rotation(proxies, settings.rotation, settings.max_rest)
            self._rotations = {"http": rotation, "https": rotation}
        try:
            self._exempt = Exemptions(exempt)
        except ValueError as error:
            raise ConfigError(f"http.proxy: NO_PROXY of the environment: {error}") from None

    def rotation(self, scheme: str, host: str) -> Rotation | None:
        """Return the proxies for a target; None if it is asked directly."""
        found = self._rotations.get(scheme)
        return None if found is None or self._exempt.cover(host) else found


def _of_environment(settings: ProxySettings) -> tuple[dict[str, Rotation], list[str]]:
    """Return a rotation of one proxy for each scheme that the environment has one for, and its exemptions."""
    variables = getproxies_environment()
    found: dict[str, Rotation] = {}
    for scheme in ("http", "https"):
        text = variables.get(scheme) or variables.get("all")
        if text is None:
            continue
        try:
            address = parse_proxy(text if "://" in text else f"http://{text}")
        except ValueError as error:
            raise ConfigError(f"http.proxy: what the environment has for {scheme} {error}") from None
        found[scheme] = Rotation([Proxy(_with_credentials(address, settings))], settings.rotation, settings.max_rest)
    exempt = [name.strip() for name in variables.get("no", "").split(",")]
    return found, [name for name in exempt if name]


def _with_credentials(address: ProxyAddress, settings: ProxySettings) -> ProxyAddress:
    if address.username or settings.username is None:
        return address
    password = "" if settings.password is None else settings.password.get_secret_value()
    return ProxyAddress(address.url, settings.username.get_secret_value(), password)


class ProxyingExchange:
    """Sends each hop by a proxy, and by another if that one can not be reached. Sets the hop's lane.

    ``tunnels``: no proxy is asked to pass a request on, so that no answer can be a proxy's own.
    """

    def __init__(self, inner: Exchange, proxies: Proxies, *, tunnels: bool = False) -> None:
        self._inner = inner
        self._proxies = proxies
        self._tunnels = tunnels

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Make the hop; raises FetchError of a kind ``proxy_...`` for whatever a proxy does in its own name."""
        scheme, host = hop.url.partition("://")[0], host_of(hop.url)
        given = hop.lane or USUAL_LANE
        rotation = self._proxies.rotation(scheme, host)
        if rotation is None:
            if given.proxy is not None:  # that of the hop before, which was redirected here
                hop.lane = given.direct()
            return await self._inner.send(hop, trace)
        failure: FetchError | None = None
        await _awake(rotation, trace)
        for _ in rotation.proxies:
            proxy = rotation.next(monotonic())
            if proxy is None:
                break
            hop.lane = proxy.lane(given)
            try:
                answer = await self._by(proxy, hop, trace)
            except FetchError as error:
                if error.kind is not ErrorKind.PROXY_UNREACHABLE:
                    raise
                rotation.failed(proxy, monotonic(), error.message)
                failure = error
                continue
            rotation.worked(proxy)
            return self._checked(answer, scheme, proxy)
        raise failure or _all_rest(rotation)

    async def _by(self, proxy: Proxy, hop: Hop, trace: HopTrace) -> Answer:
        proxy.waiting += 1
        try:
            return await self._inner.send(hop, trace)
        finally:
            proxy.waiting -= 1

    def _checked(self, answer: Answer, scheme: str, proxy: Proxy) -> Answer:
        """Return the answer if it is the origin's. Only a request for http is one that the proxy may answer."""
        # That of the proxy; which address it went to, it alone knows.
        answer.remote_ip = None
        forwarded = scheme == "http" and proxy.address.forwards and not self._tunnels
        if not forwarded or answer.status < _FIRST_ERROR:
            return answer
        if answer.status == _AUTHENTICATION_REQUIRED:
            answer.close()
            raise wants_credentials(proxy.address.shown, given=bool(proxy.address.headers))
        reason = _own_error(answer.fields.get("Proxy-Status"))
        if reason is not None:
            answer.close()
            message = f"the proxy {proxy.address.shown} answers {answer.status} in its own name: {reason}"
            raise FetchError(ErrorKind.PROXY_REFUSED, message)
        return answer


async def _awake(rotation: Rotation, trace: HopTrace) -> None:
    """Wait for a proxy that does not rest. That one is away is no reason for a job to use up its attempts."""
    rest = rotation.rest(monotonic())
    if not rest:
        return
    with trace.hold(Phase.PROXY):
        until = monotonic() + _LONGEST_WAIT
        while 0 < rest < until - monotonic():
            await asyncio.sleep(rest)
            rest = rotation.rest(monotonic())


def _all_rest(rotation: Rotation) -> FetchError:
    count = len(rotation.proxies)
    which = f"all {count} proxies rest" if count > 1 else f"the proxy {rotation.proxies[0].address.shown} rests"
    rest = rotation.rest(monotonic())
    message = f"{which} after failures, the last one: {rotation.failure}; the next try is in {rest:.1f} s"
    return FetchError(ErrorKind.PROXY_UNREACHABLE, message, sent=False)


def _own_error(proxy_status: str | None) -> str | None:
    """Return the ``error`` of the last entry of ``Proxy-Status``, which is that of the nearest proxy."""
    if proxy_status is None:
        return None
    found = _ERROR.search(proxy_status.rpartition(",")[2])
    return None if found is None else found[1]
