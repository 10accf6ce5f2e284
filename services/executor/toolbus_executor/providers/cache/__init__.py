"""Cache of model responses: equal and similar requests, shared by all replicas."""
