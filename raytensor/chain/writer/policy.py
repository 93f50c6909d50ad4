"""The spending policy of a writer: what it may do with the funds of its keys.

In: a policy (a file, or its fields), an intent, and facts about it. Out: None, or the reason for a refusal.
By default transfers, unstaking and new proxies are refused; weights, stake and registrations are allowed without a cap.
A cap refuses an intent whose amount is unknown.
Pure: knows nothing of connections, keys or the journal; `policy_check` reads the facts.
"""

import math
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from raytensor.chain import ss58
from raytensor.chain.calls import Intent
from raytensor.errors import ConfigError

DAY_S, DAY_BLOCKS = 86_400, 7_200  # blocks of 12 s

_FORBIDDEN = {
    "transfers": "the policy allows no transfers (transfers = false)",
    "unstaking": "the policy allows no unstaking (unstaking = false)",
    "proxies": "the policy lets no account become a proxy (proxies = false)",
    "calls": "the policy allows no calls by name (calls = false)",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Amounts that the caps of a policy are compared with; None where they are unknown before the intent runs."""

    spend_rao: int | None = 0
    fee_rao: int | None = 0
    slippage: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of a writer. None means no limit.

    transfers              TAO and stake may be sent to other accounts.
    unstaking              stake may leave its hotkey and subnet (remove, move, swap).
    proxies                other accounts may become proxies of the signer (Proxy.add_proxy).
    calls                  any call by its name. What it does is not known, so it is refused beside any limit below.
    max_spend_rao          TAO that one intent may spend, without its fee.
    max_spend_per_day_rao  TAO that all intents of the last 24 hours may spend together.
    max_fee_rao            fee of one intent, by the chain's estimate.
    max_slippage           share of a trade that may be lost against the present price, 0 to 1.
    netuids                the only subnets that may be touched.
    destinations           the only accounts (ss58) that may receive TAO, stake or rights.
    """

    transfers: bool = False
    unstaking: bool = False
    proxies: bool = False
    calls: bool = False
    max_spend_rao: int | None = None
    max_spend_per_day_rao: int | None = None
    max_fee_rao: int | None = None
    max_slippage: float | None = None
    netuids: frozenset[int] | None = None
    destinations: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for name in ("transfers", "unstaking", "proxies", "calls"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"policy {name} = {getattr(self, name)!r}: write true or false")
        for name in ("max_spend_rao", "max_spend_per_day_rao", "max_fee_rao"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ConfigError(f"policy {name} = {value!r}: write a whole number of rao (1 TAO = 1000000000)")
        share = self.max_slippage
        if share is not None and not (type(share) in (int, float) and 0 <= share <= 1):
            raise ConfigError(f"policy max_slippage = {share!r}: write a share from 0 to 1, as 0.02")
        for name, kind in (("netuids", int), ("destinations", str)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not all(isinstance(one, kind) for one in value)):
                raise ConfigError(f"policy {name} = {value!r}: write a list")
        for address in sorted(self.destinations or ()):
            try:
                ss58.decode(address)
            except ValueError as error:
                raise ConfigError(f"policy destinations: {address!r}: {error}") from None

    @property
    def reads(self) -> bool:
        """Whether it has a cap, which needs facts from the chain."""
        caps = self.max_spend_rao, self.max_spend_per_day_rao, self.max_fee_rao, self.max_slippage
        return any(cap is not None for cap in caps)

    def forbids(self, intent: Intent) -> str | None:
        """Why an intent of this kind, subnet or recipient is refused, None if it is allowed."""
        if intent.right and not getattr(self, intent.right):
            return _FORBIDDEN[intent.right]
        if intent.right == "calls" and (self.reads or self.netuids is not None or self.destinations is not None):
            return "the policy has limits, which can't be applied to a call by name"
        netuids = intent.netuids()
        if self.netuids is not None and netuids is None:
            return "it unstakes from every subnet, and the policy names netuids"
        if self.netuids is not None and (others := (netuids or set()) - self.netuids):
            return f"subnet {min(others)} is not among the policy's netuids {sorted(self.netuids)}"
        if self.destinations is not None and (strangers := intent.recipients() - self.destinations):
            return f"{min(strangers)} is not among the policy's destinations"
        return None

    def exceeds(self, facts: Facts, spent_rao: int = 0) -> str | None:
        """Which cap an intent exceeds, None if none. spent_rao: spent within the last 24 hours."""
        if self.max_spend_rao is not None and _more(facts.spend_rao, self.max_spend_rao):
            return f"it spends {_rao(facts.spend_rao)}, over the policy's max_spend_rao {self.max_spend_rao}"
        if self.max_spend_per_day_rao is not None:
            total = None if facts.spend_rao is None else facts.spend_rao + spent_rao
            if facts.spend_rao != 0 and _more(total, self.max_spend_per_day_rao):
                cap = self.max_spend_per_day_rao
                return f"it would make {_rao(total)} spent within a day, over the policy's max_spend_per_day_rao {cap}"
        if self.max_fee_rao is not None and _more(facts.fee_rao, self.max_fee_rao):
            return f"its fee is {_rao(facts.fee_rao)}, over the policy's max_fee_rao {self.max_fee_rao}"
        if self.max_slippage is not None and _more(facts.slippage, self.max_slippage):
            lost = "unbounded" if facts.slippage is None else f"{facts.slippage:.4%}"
            return f"its slippage is {lost}, over the policy's max_slippage {self.max_slippage:g}"
        return None


def read_policy(path: str | os.PathLike) -> Policy:
    """A policy from a TOML file whose keys are the fields of `Policy`. Raises ConfigError with the fix."""
    file = Path(path).expanduser()
    try:
        found: dict[str, Any] = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"policy {file}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"policy {file} is not valid TOML: {error}") from error
    known = [field.name for field in fields(Policy)]
    if unknown := sorted(set(found) - set(known)):
        raise ConfigError(f"policy {file}: no setting {', '.join(unknown)}; there are {', '.join(known)}")
    for name in ("netuids", "destinations"):
        if isinstance(found.get(name), list):
            found[name] = frozenset(found[name])
    return Policy(**found)


def _more(value: float | None, cap: float) -> bool:
    return value is None or math.isnan(value) or value > cap


def _rao(value: int | None) -> str:
    return "an unknown amount" if value is None else f"{value} rao"
