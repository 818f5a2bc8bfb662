"""Other people's files, and ours: one module a format."""
