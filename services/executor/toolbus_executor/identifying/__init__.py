"""Servers that are told who calls: signed, in a header of each request."""
