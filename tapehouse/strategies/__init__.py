"""Strategies: what one or several predictors say becomes orders of one account, under gates, vetoes, sizes and limits."""
