"""Tell upstream servers who calls: claims, keys, and the signed header."""
