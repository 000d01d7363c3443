"""Everything with bytes, headers, status codes, sockets and pages."""
