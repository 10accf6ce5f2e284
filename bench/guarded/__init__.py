"""Measurements of guards: cost, precision and recall, and attacks (`make bench-guards`)."""
