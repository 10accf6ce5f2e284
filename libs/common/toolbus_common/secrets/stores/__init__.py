"""Secret stores: environment, files, Vault, AWS, GCP and Azure."""
