"""Trying to overspend from outside: real gateways, real stores, a real upstream, and somebody who pulls plugs."""
