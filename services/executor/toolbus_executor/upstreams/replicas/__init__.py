"""Replicas of one server: load balancing, outlier ejection, comparison of their lists."""
