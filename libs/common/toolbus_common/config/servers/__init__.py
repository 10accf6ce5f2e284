"""Model the configuration of servers."""
