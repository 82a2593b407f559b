"""Keys of vendors: read from the environment, added to requests where nothing else sees them, struck out of all texts."""

import json
import os
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import httpx
from dotenv import dotenv_values
from pydantic import SecretStr

from tapehouse.errors import TapehouseError
from tapehouse.settings import Settings

# Shorter than this it is no secret (a vendor's public "demo"), and striking it out of answers would harm their words.
SHORTEST_SECRET = 8
HIDDEN = "[key]"
NONE = SecretStr("")


@dataclass(frozen=True)
class Credential:
    """What a vendor wants to be sent along: the environment variable it comes from, and where in a request it goes."""

    variable: str
    place: str  # 'query' or 'header'
    name: str
    prefix: str = ""

    def read(self, settings: Settings) -> "Key":
        """Its value from the environment, else from `.env` beside `sources.yaml`.

        Raises:
            TapehouseError: neither has it.
        """
        dotenv = settings.home / ".env"
        value = os.environ.get(self.variable) or (dotenv_values(dotenv).get(self.variable) if dotenv.is_file() else None)
        if not value:
            raise TapehouseError(f"{self.variable} is set neither in the environment nor in {dotenv}; this vendor wants it")
        return Key(SecretStr(value))


@dataclass(frozen=True)
class Key:
    """A key that no representation shows; none at all for a vendor that wants none."""

    secret: SecretStr = NONE

    @property
    def value(self) -> str:
        """The key itself."""
        return self.secret.get_secret_value()

    def hide(self, text: str) -> str:
        """A text without the key, however it is written there."""
        for form in self._forms():
            text = text.replace(form, HIDDEN)
        return text

    def hide_bytes(self, body: bytes) -> bytes:
        """An answer without the key: some vendors repeat it."""
        for form in self._forms():
            body = body.replace(form.encode(), HIDDEN.encode()) if len(form) >= SHORTEST_SECRET else body
        return body

    def _forms(self) -> list[str]:
        """The ways in which it may be written, the longest first; made anew each time, so that no object holds them."""
        value = self.value
        forms = {value, quote(value, safe=""), quote(value), quote_plus(value), json.dumps(value)[1:-1]} - {""}
        return sorted(forms, key=len, reverse=True)


class Keyed(httpx.BaseTransport):
    """Adds the credential to a request on its way out, below the client that logs URLs and attaches them to errors."""

    def __init__(self, credential: Credential, key: Key, below: httpx.BaseTransport) -> None:
        self.credential, self.key, self.below = credential, key, below

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url, headers = request.url, request.headers.copy()
        value = self.credential.prefix + self.key.value
        if self.credential.place == "query":
            url = url.copy_set_param(self.credential.name, value)
        else:
            headers[self.credential.name] = value
        return self.below.handle_request(
            httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=request.extensions)
        )

    def close(self) -> None:
        self.below.close()
