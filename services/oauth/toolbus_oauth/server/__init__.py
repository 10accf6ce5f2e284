"""Issue tokens: authorization, device and exchange grants, introspection, metadata."""
