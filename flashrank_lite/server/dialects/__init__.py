"""How clients ask and what they expect: each dialect reads a body and shapes an answer.

All are pure functions around `request.RankingRequest` and `request.Ranking`.
"""
