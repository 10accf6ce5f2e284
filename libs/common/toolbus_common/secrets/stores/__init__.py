"""External stores of secrets: files, Vault, AWS, GCP, Azure."""
