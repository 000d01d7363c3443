"""HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY: which proxy stands between this process and an origin."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from gateway.http.origin import Origin


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy spoken to in plain HTTP. `authorization` is the Proxy-Authorization value, from the URL's user info."""

    origin: Origin
    authorization: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"Proxy-Authorization", self.authorization),) if self.authorization else ()


class ProxyTable:
    """The environment's proxies, read once.

    Lower-case names win over upper-case ones, and HTTP_PROXY in capitals is not read under CGI (REQUEST_METHOD
    set), where a caller's Proxy header would become it. NO_PROXY: comma-separated ``*``, ``name`` or ``.name``
    (with its subdomains), addresses, networks (``10.0.0.0/8``), each with an optional ``:port``. Loopback is not
    left out by itself. Raises `ValueError` naming the variable when a URL is not usable.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        fallback = _proxy(environ, "all_proxy")
        self._proxies = {scheme: _proxy(environ, f"{scheme}_proxy") or fallback for scheme in ("http", "https")}
        rules = _variable(environ, "no_proxy").split(",")
        self._exceptions = tuple(_Exception.parse(rule.strip().lower()) for rule in rules if rule.strip())

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy to use, or None to connect directly."""
        proxy = self._proxies[origin.scheme]
        if proxy is None or any(exception.covers(origin) for exception in self._exceptions):
            return None
        return proxy


@dataclass(frozen=True, slots=True)
class _Exception:
    name: str
    port: int | None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None

    @classmethod
    def parse(cls, rule: str) -> _Exception:
        name, port = rule, None
        head, colon, tail = rule.rpartition(":")
        if colon and tail.isascii() and tail.isdigit() and (":" not in head or head.endswith("]")):
            name, port = head, int(tail)
        name = name.removeprefix("[").removesuffix("]")
        try:
            network = ipaddress.ip_network(name, strict=False)
        except ValueError:
            network = None
        return cls(name.removeprefix("*.").lstrip("."), port, network)

    def covers(self, origin: Origin) -> bool:
        if self.port is not None and self.port != origin.port:
            return False
        if self.name == "*":
            return True
        host = origin.server_name.lower()
        if self.network is not None:
            try:
                return ipaddress.ip_address(host) in self.network
            except ValueError:
                return False
        return bool(self.name) and (host == self.name or host.endswith("." + self.name))


def _variable(environ: Mapping[str, str], name: str) -> str:
    if name in environ:
        return environ[name].strip()
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        return ""
    return environ.get(name.upper(), "").strip()


def _proxy(environ: Mapping[str, str], name: str) -> Proxy | None:
    value = _variable(environ, name)
    if not value:
        return None
    url = value if "://" in value else f"http://{value}"
    scheme = url.partition("://")[0].lower()
    if scheme != "http":
        raise ValueError(f"{name.upper()}: proxies are spoken to over http://, {scheme}:// is not supported")
    try:
        origin = Origin.from_url(url)
    except ValueError as error:
        raise ValueError(f"{name.upper()}: {error}") from None
    parts = urlsplit(url)
    if parts.username is None:
        return Proxy(origin)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(origin, b"Basic " + base64.b64encode(credentials))
