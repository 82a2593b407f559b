"""The static report: one self-contained HTML that says in words first what the figures show, and a preview as PNG."""
