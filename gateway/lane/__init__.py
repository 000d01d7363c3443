"""The lane: a lean server for the requests that are to be forwarded and look as they usually do.

Everything else, a connection at a time, is left to aiohttp's server. What a request means is the same on both ways
(`gateway.incoming.Incoming`, `gateway.middleware.guard`); only reading and writing differ.
"""
