"""Checkpoint folder → `Source`: what a reranker's files say, and its torch module."""
