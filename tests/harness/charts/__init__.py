"""Rendered Helm charts, and the schemas of Kubernetes for them."""
