"""Vetoes that depend on the account's own past: losses in a row, the share of wins, the fall from a recent high.

Each pauses new entries for its cool-down and then starts anew, so that none locks for ever; exits are never held up. What a
guard has counted before its pause is forgotten with it: it can only hold again on what came after.

`guards` is an array (GUARDS, PARAMETERS): the limit (NaN: the guard is off), the window, the least sample and the cool-down.
For losses in a row the window and the sample are not used; for the share of wins window and sample are closed trades; for the
drawdown they are sessions. Cool-downs are sessions.
"""

import numpy as np
from numba import njit

GUARDS = ("consecutive_losses", "win_rate", "drawdown")
PARAMETERS = ("limit", "window", "least", "cool_down")
LOSSES, WINS, DRAWDOWN = range(3)
GUARDED = 100  # vetoes by guards count from here; below it are those by the decision's own data

_LIMIT, _WINDOW, _LEAST, _COOL_DOWN = range(4)


@njit(cache=True)
def new_guard(guards, initial):
    """State of the guards: row 0 the end of each pause, row 1 counters, rows 2 and 3 rings of outcomes and of equity."""
    longest = 1
    for i in range(3):
        if not np.isnan(guards[i, _LIMIT]):
            longest = max(longest, int(guards[i, _WINDOW]))
    state = np.zeros((4, max(longest, 4)))
    state[0, :3] = -1.0
    return state


@njit(cache=True, inline="always")
def guard_trade(guards, state, t, pnl):
    """Count a closed trade; a pause begins where a limit is reached."""
    if not np.isnan(guards[LOSSES, _LIMIT]):
        state[1, LOSSES] = state[1, LOSSES] + 1.0 if pnl < 0.0 else 0.0
        if state[1, LOSSES] >= guards[LOSSES, _LIMIT]:
            state[0, LOSSES] = t + guards[LOSSES, _COOL_DOWN]
            state[1, LOSSES] = 0.0
    if not np.isnan(guards[WINS, _LIMIT]):
        window = int(guards[WINS, _WINDOW])
        state[2, int(state[1, WINS]) % window] = 1.0 if pnl > 0.0 else 0.0
        state[1, WINS] += 1.0
        seen = min(int(state[1, WINS]), window)
        if seen >= guards[WINS, _LEAST] and state[2, :seen].sum() < guards[WINS, _LIMIT] * seen:
            state[0, WINS] = t + guards[WINS, _COOL_DOWN]
            state[1, WINS] = 0.0


@njit(cache=True, inline="always")
def guard_after(guards, state, t, equity):
    """Look at the equity of a close; a pause begins where it lies too far below the highest of the window."""
    if np.isnan(guards[DRAWDOWN, _LIMIT]):
        return
    window = int(guards[DRAWDOWN, _WINDOW])
    state[3, int(state[1, DRAWDOWN]) % window] = equity
    state[1, DRAWDOWN] += 1.0
    seen = min(int(state[1, DRAWDOWN]), window)
    if seen >= guards[DRAWDOWN, _LEAST] and equity < (1.0 - guards[DRAWDOWN, _LIMIT]) * state[3, :seen].max():
        state[0, DRAWDOWN] = t + guards[DRAWDOWN, _COOL_DOWN]
        state[1, DRAWDOWN] = 0.0


@njit(cache=True, inline="always")
def guard_of(guards, state, t):
    """Number of the first guard whose pause holds after the close of session t, or -1."""
    for i in range(3):
        if not np.isnan(guards[i, _LIMIT]) and t < state[0, i]:
            return i
    return -1
