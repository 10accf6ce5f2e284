"""Model the configuration of retention and exports."""
