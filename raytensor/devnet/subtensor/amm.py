"""The constant-product pool of one subnet, TAO against alpha. Integers in rao.

In: reserves, an amount, a fee rate, a limit price. Out: the input, the output and the fee of a trade.
The chain's pool is weighted; with equal weights and injections in proportion to the price it equals this one
(pallet swap, balancer). The fee (rate/65535 of the input) does not enter the pool; the block's author receives it.
Knows nothing of storage, accounts or subnets.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

FEE_DENOMINATOR = 65_535
MIN_RESERVE = 1_000_000
MAX_INPUT_FACTOR = 1_000
PRICE_UNIT = 10**9  # prices are rao of TAO per whole alpha
U64_MAX = 2**64 - 1


class SwapRefused(Exception):
    """The pool can't make the trade; `name` is the error of the Swap pallet."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Swap:
    """One trade: the trader pays paid_in + fee and receives out, all in rao.

    A purchase has paid_in and fee in TAO and out in alpha; a sale has paid_in and fee in alpha and out in TAO.
    """

    paid_in: int
    fee: int
    out: int

    @property
    def given(self) -> int:
        return self.paid_in + self.fee


def price_rao(tao: int, alpha: int) -> int:
    """Rao of TAO for one whole alpha; 0 for an empty pool."""
    return tao * PRICE_UNIT // alpha if alpha else 0


def fee_of(amount: int, rate: int) -> int:
    return amount * rate // FEE_DENOMINATOR


def fee_on_top(paid_in: int, rate: int) -> int:
    """Fee that belongs to an input net of fee."""
    return paid_in * rate // (FEE_DENOMINATOR - rate)


def _out(reserve_in: int, reserve_out: int, paid_in: int) -> int:
    return reserve_out * paid_in // (reserve_in + paid_in)


def _trade(reserve_in: int, reserve_out: int, amount: int, fee_rate: int, max_paid_in: int | None) -> Swap:
    if min(reserve_in, reserve_out) < MIN_RESERVE:
        raise SwapRefused("ReservesTooLow")
    if amount > reserve_in * MAX_INPUT_FACTOR:
        raise SwapRefused("SwapInputTooLarge")
    fee = fee_of(amount, fee_rate)
    paid_in = amount - fee
    if max_paid_in is not None and paid_in > max_paid_in:
        paid_in = max_paid_in
        fee = fee_on_top(paid_in, fee_rate)
    out = _out(reserve_in, reserve_out, paid_in)
    if paid_in and not out:
        raise SwapRefused("ReservesTooLow")
    # The pool must stay tradable.
    if reserve_out - out < MIN_RESERVE:
        raise SwapRefused("ReservesTooLow")
    return Swap(paid_in, fee, out)


def max_buy_to_price(tao: int, alpha: int, limit_rao: int) -> int:
    """TAO that moves the price up to the limit: (tao + x)^2 / (tao*alpha) = limit; 0 at or above the limit."""
    return max(0, isqrt(tao * alpha * limit_rao // PRICE_UNIT) - tao)


def max_sell_to_price(tao: int, alpha: int, limit_rao: int) -> int:
    """Alpha that moves the price down to the limit: tao*alpha / (alpha + x)^2 = limit."""
    if limit_rao == 0:
        return U64_MAX
    return max(0, isqrt(tao * alpha * PRICE_UNIT // limit_rao) - alpha)


def buy(tao: int, alpha: int, amount: int, fee_rate: int = 0, limit_rao: int | None = None) -> Swap:
    """Pay TAO, receive alpha. With a limit, only the part that keeps the price at or below it is traded."""
    cap = None if limit_rao is None else max_buy_to_price(tao, alpha, limit_rao)
    return _trade(tao, alpha, amount, fee_rate, cap)


def sell(tao: int, alpha: int, amount: int, fee_rate: int = 0, limit_rao: int | None = None) -> Swap:
    """Pay alpha, receive TAO. With a limit, only the part that keeps the price at or above it is traded."""
    cap = None if limit_rao is None else max_sell_to_price(tao, alpha, limit_rao)
    return _trade(alpha, tao, amount, fee_rate, cap)
