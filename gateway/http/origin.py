"""Where a request goes: scheme, host, port."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """An HTTP server's address. `host` is ASCII (IDNA applied), IPv6 without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def from_url(cls, url: str) -> Origin:
        """The origin of an absolute URL. Raises `ValueError` naming what is wrong with it."""
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError(f"{shown!r}: the scheme must be http or https")
        if not parts.hostname:
            raise ValueError(f"{shown!r}: the host is missing")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"{shown!r}: the port must be a number from 1 to 65535") from None
        if port == 0:
            raise ValueError(f"{shown!r}: the port must be a number from 1 to 65535")
        return cls(parts.scheme, _ascii_host(parts.hostname), port or _DEFAULT_PORTS[parts.scheme])

    @property
    def authority(self) -> str:
        """``host:port``, IPv6 in brackets."""
        return f"{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> bytes:
        """The Host header's value: the port only when it is not the scheme's own."""
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return self._bracketed.encode("ascii")
        return self.authority.encode("ascii")

    @property
    def server_name(self) -> str:
        """The name a certificate must carry: no brackets, no trailing dot."""
        return self.host.rstrip(".")

    @property
    def _bracketed(self) -> str:
        # A zone index (fe80::1%eth0) means something on this machine only: RFC 6874 keeps it out of the header.
        return f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host


def is_ip_literal(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ascii_host(host: str) -> str:
    if ":" in host:
        return host
    try:
        encoded = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(
            f"{host!r} is not a host name: a label is empty, too long or has forbidden characters"
        ) from None
    if any(not (character.isalnum() or character in "-._") for character in encoded):
        raise ValueError(f"{host!r} is not a host name: it has forbidden characters")
    return encoded
