"""The settings of OAuth 2.0: an entry of ``http.auth`` with ``type: oauth2``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.settings import Duration, Secret
from fetcher.transports.http.credentials.hosts import AuthSettings
from fetcher.transports.http.credentials.keeping import KeptToken
from fetcher.transports.http.credentials.oauth import ByClient, ByRefreshToken, OAuthScheme
from fetcher.transports.http.credentials.tokens import Client, TokenEndpoint

if TYPE_CHECKING:
    from aiohttp import ClientTimeout

    from fetcher.transports.http.exchange import Exchange, Lane


class OAuth2Settings(AuthSettings):
    """A token that is got with the credentials of a client, or with a refresh token (RFC 6749, sections 4.4 and 6)."""

    type: Literal["oauth2"] = "oauth2"
    token_url: str = Field(pattern=r"^https?://[^\s/?#@]+[^\s#]*$")
    """The token endpoint (RFC 6749, section 3.2)."""
    grant: Literal["client_credentials", "refresh_token"] = "client_credentials"
    """What a token is asked for with."""
    client_id: str
    """What the authorization server calls this client."""
    client_secret: Secret | None = None
    """A client that has a ``refresh_token`` may have none."""
    client_auth: Literal["basic", "body", "none"] | None = None
    """Where id and secret stand in the request for a token (RFC 6749, section 2.3.1): ``basic`` unless there is no
    secret, which is ``none``."""
    refresh_token: Secret | None = None
    """The first one; a server may replace it with each answer."""
    keep: str | None = Field(default=None, min_length=1)
    """A file for the refresh token that came last, which a later run goes on with. Without it that is gone with the
    run, and if the server takes each but once, so is the access."""
    scope: str | None = None
    """What the token is to be good for: names with spaces between them; by default what the server thinks fit."""
    parameters: dict[str, str] = Field(default={})
    """What else the token endpoint wants to be sent, such as ``audience``."""
    patience: Duration = 3600.0
    """For how long a token endpoint that is down puts jobs off; after that they fail (kind ``auth_failed``)."""

    @model_validator(mode="after")
    def _secret_is_not_sent_in_the_clear(self) -> Self:
        if not self.insecure and not self.token_url.startswith("https://"):
            raise PydanticCustomError("token_url", "has a token_url without TLS; write https://, or insecure: true")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        words = self._contradiction()
        if words is not None:
            raise PydanticCustomError("grant", "{words}", {"words": words})
        return self

    def _contradiction(self) -> str | None:
        refreshing = self.grant == "refresh_token"
        if refreshing != (self.refresh_token is not None):
            has = "no refresh_token" if refreshing else "a refresh_token"
            return f"has {has} with grant: {self.grant}; write grant: refresh_token and refresh_token, or neither"
        if self.keep is not None and not refreshing:
            return "has keep, which is for grant: refresh_token alone; leave it out"
        if self.client_secret is None and not refreshing:
            return "has no client_secret, which only grant: refresh_token can do without"
        if (self.client_secret is None) != (self._client_auth == "none"):
            return f"has client_auth: {self.client_auth}, which does not fit the client_secret; leave it out"
        return None

    @property
    def _client_auth(self) -> Literal["basic", "body", "none"]:
        return self.client_auth or ("none" if self.client_secret is None else "basic")

    def scheme(self, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> OAuthScheme:
        """Return what gets tokens by the given exchange, and makes headers of them."""
        secret = "" if self.client_secret is None else self.client_secret.get_secret_value()
        client = Client(self.client_id, secret, self._client_auth)
        return OAuthScheme(TokenEndpoint(self.token_url, client, exchange, timeout, lane), self._grant(), self.patience)

    def _grant(self) -> ByClient | ByRefreshToken:
        parameters = ({"scope": self.scope} if self.scope else {}) | self.parameters
        if self.refresh_token is None:
            return ByClient(parameters)
        first = self.refresh_token.get_secret_value()
        return ByRefreshToken(first, None if self.keep is None else KeptToken(self.keep, first), parameters)
