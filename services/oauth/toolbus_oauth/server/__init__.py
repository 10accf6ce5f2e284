"""The authorization server: authorization, device and exchange grants, introspection."""
