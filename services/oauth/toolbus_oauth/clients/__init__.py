"""Register OAuth clients, dynamically or by metadata document."""
