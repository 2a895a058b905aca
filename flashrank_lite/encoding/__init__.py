"""Text → token ids: what a model reads of a query and a passage."""
