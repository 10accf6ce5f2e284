"""The seal: a hash tree over every customer's events, and signed statements of its growth."""
