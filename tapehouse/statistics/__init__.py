"""What a series of returns says, and how far it can be believed: ratios, drawdowns, resampling, trials, overfitting."""
