"""Human approvals: their model, storage and decisions."""
