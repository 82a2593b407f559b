"""Tapehouse: a declarative data and model warehouse for trading language models."""
