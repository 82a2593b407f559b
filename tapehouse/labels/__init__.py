"""Labels: what happened after a decision, from the records known by each label's own cutoff."""
