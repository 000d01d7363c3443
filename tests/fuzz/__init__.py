"""Hostile input made by the thousand: `make fuzz SECONDS=600`, and a few seconds of it in every `make test`.

`targets.TARGETS` are the doors that strangers' bytes come in by; `mutation` makes such bytes out of `seeds`.
"""
