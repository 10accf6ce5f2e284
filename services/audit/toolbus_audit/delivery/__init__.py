"""Delivery to other systems: cursor, reconciler and HTTP clients of exports, sinks and webhooks."""
