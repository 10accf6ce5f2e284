"""Toolbus as a client of other authorization servers, which issue tokens for upstream servers."""
