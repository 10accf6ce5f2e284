"""Requests, pages and errors of the authorization server."""
