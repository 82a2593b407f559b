"""Where each number of an account lies: columns of what the kernel returns and of its state, and its codes."""

STOP, TAKE, VERTICAL, END, SIGNAL, DELISTED = range(6)
EXIT_REASONS = ("stop", "take", "vertical", "end", "signal", "delisted")

LEDGER = (
    "equity",
    "cash",
    "long_value",
    "short_value",
    "realised",
    "unrealised",
    "dividends",
    "interest",
    "commission",
    "slippage",
    "borrow",
    "traded",
)
TRADE_NUMBERS = (
    "entry_price",
    "exit_price",
    "shares",
    "exit_shares",
    "pnl",
    "commission",
    "slippage",
    "dividends",
    "borrow",
)
ENTRY_PRICE, EXIT_PRICE = range(2)
TRADE_INDICES = ("symbol", "side", "decision", "entry", "exit", "reason")
COUNTS = ("signals", "filled", "skipped", "expired", "unexecuted", "scaled", "refused", "vetoed")
SIGNALS, FILLED, SKIPPED, EXPIRED, UNEXECUTED, SCALED, REFUSED, VETOED = range(8)
# What became of a decision; from VETO on the veto that held, as VETO plus its number.
NOTHING, ORDERED, PASSED_OVER, TOO_LATE, NO_SIZE, VETO = range(6)

# Bits of a command on the open positions of a symbol.
EXIT_NOW, TO_BREAK_EVEN, TRAIL_ON, TRAIL_OFF, EXIT_LONGS, EXIT_SHORTS = 1, 2, 4, 8, 16, 32

# When an order fills.
NOT_NOW, AT_OPEN, INSIDE_BAR = range(3)

# Columns of the state of a position (a lot of a symbol) and of the resting order of a symbol.
SHARES, REFERENCE, REFERENCE_FX, UPPER, LOWER, BEST, RISK, ENTRY_LEVEL, TRAILING, DEADLINE, TRADE, LEAVING = range(12)
LOT_COLUMNS = 12
SIDE, QUANTITY, LIMIT, LEFT, WIDTH, CENTRE, FIRST, DECIDED = range(8)
ORDER_COLUMNS = 8
