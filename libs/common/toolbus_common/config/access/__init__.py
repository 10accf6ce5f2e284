"""Configuration models of keys, customers, rules, limits and administrators."""
