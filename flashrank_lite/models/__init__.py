"""Where a model comes from, and what it says of itself."""
