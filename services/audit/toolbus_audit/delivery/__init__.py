"""Delivery to other systems: the cursor, reconciler and HTTP client that all of it shares."""
