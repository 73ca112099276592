"""HTTP exchanges and their bytes: frames, messages, capture, and the patches of client libraries."""
