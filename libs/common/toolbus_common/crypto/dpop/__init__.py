"""Proofs that whoever shows a token holds its key (DPoP, RFC 9449): read, made, and good once."""
