"""Event-driven backtests of predictions on daily bars: one cash pool, next-bar execution, an exact ledger."""
