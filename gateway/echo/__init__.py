"""The built-in upstream ``echo:``: a model that answers offline, in every dialect, and bills truthfully.

It answers with the caller's own last message, calls tools when asked to, fills JSON schemas, and reports as usage
the very count a budget holds and the real token count of what it said.
"""

from gateway.echo.upstream import EchoUpstream

__all__ = ["EchoUpstream"]
