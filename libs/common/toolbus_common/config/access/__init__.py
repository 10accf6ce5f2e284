"""Model the configuration of keys, customers, rules, limits and administrators."""
