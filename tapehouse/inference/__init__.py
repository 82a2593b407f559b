"""Asking a language model: what it writes, freely or within a grammar, and how likely it finds the actions it may take.

`asking.predict` is the whole of it. `generation` writes in batches with a key-value cache, `sampling` chooses the next token,
`grammar` says what may follow, `scoring` gives log-probabilities of fixed answers in one pass, `families` know what the answers
of orders, theses and agents look like, and `questions` what a recipe asks at a decision.
"""
