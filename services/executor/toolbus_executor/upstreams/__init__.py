"""Adapters from each kind of upstream server to one protocol of calls."""
