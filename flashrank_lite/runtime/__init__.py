"""Token ids → arrays: what runs together, on which threads, in which session."""
