"""Prompts and answers of all families: rendered and parsed in one place for datasets, evaluation and serving alike."""
