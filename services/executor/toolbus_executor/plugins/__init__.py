"""Plugins that executor reaches itself: webhooks."""
