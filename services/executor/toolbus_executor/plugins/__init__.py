"""Plugins that executor reaches itself: webhooks, and Python packages in processes."""
