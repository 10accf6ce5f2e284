"""Toolbus as a client of other authorization servers: tokens for the servers behind it."""
