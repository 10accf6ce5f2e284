"""Send signed events to configured webhooks."""
