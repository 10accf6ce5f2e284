"""Several replicas behind one server: which of them takes a call, and which takes none for now."""
