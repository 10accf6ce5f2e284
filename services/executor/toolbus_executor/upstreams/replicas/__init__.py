"""Replicas of one server: load balancing, outlier ejection, and comparison of their lists."""
