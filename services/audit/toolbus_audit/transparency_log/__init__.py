"""The seal: a hash tree over every customer's facts, and signed statements of its growth."""
