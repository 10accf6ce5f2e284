"""Send events to configured webhooks, signed."""
