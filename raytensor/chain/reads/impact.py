"""The price after a trade: what a limit price is compared with.

In: a client, a subnet, an amount. Out: prices in rao of TAO per alpha, ratios of two prices.
The slippage of a trade is the change of the price that it makes, as a share: 1 - now/after for a purchase and
1 - after/now for a sale. It is what a `*_limit` call bounds: the chain compares the price after the trade with the
limit. The price after a trade is the slope of the simulated trades around it (SwapRuntimeApi.sim_swap_*), so that it
follows the pool of the chain, whatever its formula. Reads only.
"""

from collections.abc import Callable

from raytensor.chain.reads.quotes import Trade, buy, price, ratio, sell
from raytensor.chain.rpc.client import ChainClient
from raytensor.errors import ChainRefused

RAO = 10**9
_STEP = 10**6  # smallest difference of two amounts whose outputs are compared, in rao of the output


def price_after_buying(client: ChainClient, netuid: int, tao_rao: int) -> int:
    """Raises ChainRefused "InsufficientLiquidity" where the pool is too small."""
    step = max(tao_rao // 256, _STEP, _STEP * price(client, netuid) // RAO)
    paid, got = _slope(lambda amount: buy(client, netuid, amount), tao_rao, step)
    return paid * RAO // max(1, got)


def price_after_selling(client: ChainClient, netuid: int, alpha_rao: int) -> int:
    """Raises ChainRefused "InsufficientLiquidity" where the pool is too small."""
    step = max(alpha_rao // 256, _STEP, _STEP * RAO // max(1, price(client, netuid)))
    paid, got = _slope(lambda amount: sell(client, netuid, amount), alpha_rao, step)
    return got * RAO // max(1, paid)


def ratio_after_moving(client: ChainClient, origin_netuid: int, destination_netuid: int, alpha_rao: int) -> int:
    """Alpha of the destination for 10^9 alpha of the origin after a move, in 10^-9 (`quotes.ratio` is that before)."""
    if origin_netuid == destination_netuid:
        return RAO
    got = sell(client, origin_netuid, alpha_rao).got
    after = price_after_selling(client, origin_netuid, alpha_rao)
    return after * RAO // max(1, price_after_buying(client, destination_netuid, got))


def change(worse: int, better: int) -> float:
    """The slippage between two prices, 0 to 1."""
    return max(0.0, 1 - worse / max(1, better))


def move_change(client: ChainClient, origin_netuid: int, destination_netuid: int, alpha_rao: int) -> tuple[int, int]:
    """(ratio now, ratio after a move)."""
    now = ratio(client, origin_netuid, destination_netuid)
    return now, ratio_after_moving(client, origin_netuid, destination_netuid, alpha_rao)


def _slope(trade: Callable[[int], Trade], amount: int, step: int) -> tuple[int, int]:
    """(difference paid to the pool, difference got) of two trades around an amount."""
    lower = trade(max(1, amount - step) if amount > step else amount)
    try:
        upper = trade(amount + step)
    except ChainRefused:  # the pool takes no more
        upper = trade(amount)
    if upper.paid == lower.paid:
        lower = Trade(0, 0, 0, 0.0)
    return upper.paid - lower.paid, upper.got - lower.got
