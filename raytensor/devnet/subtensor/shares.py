"""Shares of a stake pool: each member's part of a hotkey's alpha. Exact integers.

In: the pool's value (rao of alpha), its shares, one member's shares. Out: shares to add or remove, a member's value.
A share is a decimal of 18 places, so that it fits the chain's SafeFloat (mantissa, exponent) without rounding.
Shares of a deposit are rounded down, shares of a withdrawal up. So a member's value never falls because of another
member's move, and the sum of the members' values is at most the pool's value.
"""

from __future__ import annotations

EXPONENT = -18
UNIT = 10**-EXPONENT


def value(pool: int, total: int, mine: int) -> int:
    """Rao that `mine` shares of `total` are worth in a pool of `pool` rao."""
    return pool * mine // total if total else 0


def shares_for_deposit(pool: int, total: int, amount: int) -> int:
    """New shares for `amount` rao. A pool without members or value starts at one share per rao."""
    if not total or not pool:
        return amount * UNIT
    return total * amount // pool


def shares_for_withdrawal(pool: int, total: int, mine: int, amount: int) -> int:
    """Shares that a withdrawal of `amount` rao takes; all of the member's if the rest is worth less than 1 rao."""
    assert amount <= value(pool, total, mine), "a member can't withdraw more than its shares are worth"
    taken = -(-total * amount // pool) if pool else mine
    taken = min(taken, mine)
    left = value(pool - amount, total - taken, mine - taken)
    return taken if left else mine
