"""HTTP and TCP below the level of any client library."""
