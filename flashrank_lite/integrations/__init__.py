"""flashrank-lite inside other libraries: a file for each.

Drop-ins answer as a peer does, and need nothing but this package: `flashrank`, `flagembedding`,
`sentence_transformers`, `fastembed`, `rerankers`. Adapters are components of a framework, which has
to be installed (an extra each): `langchain`, `llama_index`, `haystack`, `ray`, `spark`.

Nothing here is imported by the rest of the package.
"""
