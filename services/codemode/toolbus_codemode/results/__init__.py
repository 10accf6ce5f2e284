"""Store large results of programs, preview them, and read them back."""
