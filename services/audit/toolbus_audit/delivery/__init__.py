"""Deliver events to other systems: cursor, reconciler and HTTP client that all deliveries share."""
