"""Admission of model requests: grants, prices, size."""
