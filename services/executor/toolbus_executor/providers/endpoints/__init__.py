"""Addresses of the APIs of each kind of provider, and the authorization of requests."""
