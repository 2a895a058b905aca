"""An HTTP server of rankers that speaks what rerank clients already speak.

`flashrank-lite serve` runs it; `flashrank_lite.server.app.create_app` makes the application to
mount elsewhere. It holds `Ranker`s and knows nothing below them.
"""
