"""``python -m gateway.healthcheck``: exit code 0 while this machine's gateway answers that it is healthy.

For a container's own health check, where there is no curl. It runs every few seconds, so it imports next to nothing: a
socket, and TLS only where the gateway speaks it. HOST and PORT are the gateway's own.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 2.0
_ASKED = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not bound


def status(host: str, port: int, *, tls: bool = False) -> int:
    """The status code of /health; 0 when what answers speaks no HTTP. Raises `OSError` when nothing answers."""
    plain = socket.create_connection((host, port), timeout=TIMEOUT_S)
    with plain, _encrypted(plain) if tls else plain as connection:
        connection.sendall(_ASKED)
        words = connection.recv(64).split(None, 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0


def _encrypted(plain: socket.socket) -> socket.socket:
    import ssl

    # Our own machine is asked whether it lives, and nothing is told to it: whose certificate it shows does not matter.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def main() -> int:
    """Ask over HTTP, then over HTTPS; returns the exit code."""
    host, port = os.environ.get("HOST", ""), int(os.environ.get("PORT") or 8000)
    host = _EVERYWHERE.get(host, host)
    try:
        try:
            found = status(host, port)
        except ConnectionResetError:
            found = 0
        if found in (0, 400):  # what an HTTPS server makes of a plain request
            found = status(host, port, tls=True)
    except OSError as error:
        print(f"{host}:{port} does not answer: {error}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    if found != 200:
        print(f"{host}:{port} is not healthy: /health answers {found}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
