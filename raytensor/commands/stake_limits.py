"""The limit prices of stake orders: one number is shown, sent as the limit, and refused before anything is sent.

In: `--slippage`, `--partial`, `--no-limit`, prices before and after a trade. Out: a limit price for the order, and the
part of its effect about prices. The slippage is that of `chain.reads.impact`.
"""

import argparse
from dataclasses import dataclass
from typing import Any

from raytensor.chain.reads import impact
from raytensor.commands.options import MILLION, share
from raytensor.errors import ChainRefused


def add_options(to: argparse.ArgumentParser, *, partial: bool = True) -> None:
    """--slippage, --no-limit and, where part of an order can be carried out, --partial."""
    text = "largest accepted change of the price by the order itself and trades before it (default 5%%)"
    to.add_argument("--slippage", type=share, default=50_000, metavar="SHARE", dest="slippage_ppm", help=text)
    to.add_argument("--no-limit", action="store_true", help="accept any price")
    if partial:
        to.add_argument("--partial", action="store_true", help="accept a part of the amount at the limit price")


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of an order, each per unit of what is traded.

    now, after  before and after the order, if nothing else trades.
    buys        a rising price is worse, else a falling one.
    unit        part of the names in an effect: "" for TAO, "alpha_" for alpha.
    """

    now: int
    after: int
    buys: bool = False
    unit: str = ""

    @property
    def slippage(self) -> float:
        return impact.change(self.now, self.after) if self.buys else impact.change(self.after, self.now)

    def limit(self, args: argparse.Namespace) -> int | None:
        """The limit price, None with --no-limit. Raises ChainRefused where the order would exceed it."""
        if args.no_limit:
            return None
        kept = MILLION - args.slippage_ppm
        limit = -(-self.now * MILLION // kept) if self.buys else self.now * kept // MILLION
        exceeds = self.after > limit if self.buys else self.after < limit
        if exceeds and not vars(args).get("partial"):
            message = (
                f"the order changes the price by {self.slippage:.4%}, over --slippage {args.slippage_ppm / MILLION:.4%}"
            )
            fix = f"--slippage {min(99.99, self.slippage * 105 + 0.05):.2f}%"
            part = " --partial," if "partial" in vars(args) else ""
            action = f"fix: give a smaller amount,{part} {fix}, or --no-limit"
            raise ChainRefused(message, name="SlippageTooHigh", action=action)
        return limit

    def effect(self, limit: int | None) -> dict[str, Any]:
        """The part of an effect about prices; without a limit there is no such entry."""
        unit = self.unit
        found = {"slippage": f"{self.slippage:.4%}", f"price_{unit}rao": self.now, f"price_after_{unit}rao": self.after}
        return found if limit is None else {**found, f"price_limit_{unit}rao": limit}
