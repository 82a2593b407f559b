"""Point-in-time features: pure functions from versioned records to one row a decision."""
