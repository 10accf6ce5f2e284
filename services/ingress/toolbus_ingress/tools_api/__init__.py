"""Offer tools as functions over plain REST."""
