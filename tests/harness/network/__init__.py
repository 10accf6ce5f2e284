"""HTTP and TCP without client libraries."""
