"""Access control of a server: which callers are answered, and how often.

In: `Metagraph` snapshots of the subnets that are served, a hotkey, an address, the time. Out: nothing, or `Refused` or
`RateLimited` with the reason. Pure: the time is an argument, nothing waits. Fail-closed: without a metagraph, or with
one that is too old, only the allow list is served. Knows nothing of HTTP or signatures.

    address (before anything is read) -> admit (before the body) -> spend (after the nonce check)

`spend` comes after the nonce check, so that replayed requests do not count against the limit of a caller.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from raytensor.chain import ss58
from raytensor.config.wire import AccessPolicy
from raytensor.errors import ConfigError
from raytensor.types import Metagraph
from raytensor.wire.endpoints import group_of
from raytensor.wire.errors import RateLimited, Refused


class Buckets:
    """Token buckets by key: `rate` tokens per second each, at most `burst`.

    At most `max_keys` are kept. The least recently used is dropped first: dropping a bucket refills it, and it is the
    nearest to full.
    """

    def __init__(self, rate: float, burst: float, max_keys: int) -> None:
        self._rate, self._burst, self._max_keys = rate, burst, max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, time in seconds)

    def __len__(self) -> int:
        return len(self._buckets)

    def spend(self, key: str, now_s: float) -> float:
        """Use one token. Returns 0, or the seconds until there is one."""
        tokens, then_s = self._buckets.pop(key, (self._burst, now_s))
        tokens = min(self._burst, tokens + max(0.0, now_s - then_s) * self._rate)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
        self._buckets[key] = (tokens - 1.0 if wait_s == 0.0 else tokens, now_s)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return wait_s


@dataclass(frozen=True, slots=True)
class _Subnet:
    """The neurons of a subnet: hotkey -> (validator permit, alpha in rao); when they were read."""

    neurons: dict[str, tuple[bool, int]]
    updated_s: float


class AccessControl:
    """The access policy of the hotkeys that one server serves, on one subnet or several, in one replica."""

    def __init__(self, settings: AccessPolicy) -> None:
        check_addresses(settings)
        self._settings = settings
        self._allow = frozenset(settings.allow)
        self._deny = frozenset(settings.deny)
        self._deny_networks = [ipaddress.ip_network(network) for network in settings.deny_networks]
        self._hotkeys = Buckets(settings.hotkey_rate, settings.hotkey_burst, settings.max_tracked)
        self._addresses = Buckets(settings.address_rate, settings.address_burst, settings.max_tracked)
        self._subnets: dict[int, _Subnet] = {}

    def update(self, metagraph: Metagraph, now_s: float) -> None:
        """Use this snapshot from now on. `now_s`: the time at which it was read from the chain."""
        permits, stakes = metagraph.validator_permit.tolist(), metagraph.stake_alpha_rao.tolist()
        neurons = dict(zip(metagraph.hotkeys, zip(permits, stakes, strict=True), strict=True))
        self._subnets[metagraph.netuid] = _Subnet(neurons, now_s)

    @property
    def netuids(self) -> tuple[int, ...]:
        """The subnets that are served; empty before the first snapshot."""
        return tuple(self._subnets)

    def address(self, address: str, now_s: float) -> None:
        """Before anything is read. Raises Refused for a denied network, RateLimited for an address over its limit."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise Refused("the request does not come from an IP address") from None
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip in network for network in self._deny_networks):
            raise Refused("this server refuses your network")
        wait_s = self._addresses.spend(group_of(address), now_s)
        if wait_s > 0:
            rate = self._settings.address_rate
            raise RateLimited(f"your address sends more than {rate:g} requests/s", retry_after_s=wait_s)

    def admit(self, hotkey: str, now_s: float, netuid: int | None = None) -> None:
        """Raises Refused, with the reason, unless the caller is served on the subnet; None: on any of them."""
        settings = self._settings
        if hotkey in self._deny:
            raise Refused("your hotkey is on this server's deny list", fix="ask the operator")
        if hotkey in self._allow:
            return
        if not (settings.require_registered or settings.require_permit or settings.min_stake_alpha_rao):
            return
        if not self._subnets:
            raise Refused("this server has not read its subnet yet", fix="try again in a minute")
        refusals = []
        for number in self._subnets if netuid is None else (netuid,):
            refusal = self._refusal(hotkey, now_s, number)
            if refusal is None:
                return
            refusals.append(refusal)
        raise refusals[-1]

    def _refusal(self, hotkey: str, now_s: float, netuid: int) -> Refused | None:
        """Why a caller is not served on a subnet, None if it is."""
        settings, subnet, where = self._settings, self._subnets[netuid], f"on subnet {netuid}"
        age_s = now_s - subnet.updated_s
        if age_s > settings.max_metagraph_age_s:
            return Refused(f"this server's view of its subnet is {age_s:.0f} s old", fix="try again later")
        if hotkey not in subnet.neurons:
            return Refused(f"your hotkey is not registered {where}", fix=f"register it {where}")
        permit, stake_rao = subnet.neurons[hotkey]
        if settings.require_permit and not permit:
            fix = "get more stake; the next epoch of the subnet assigns permits"
            return Refused(f"your hotkey has no validator permit {where}", fix=fix)
        least_rao = settings.min_stake_alpha_rao
        if stake_rao < least_rao:
            message = f"your hotkey has {stake_rao / 1e9:.9g} alpha {where}; this server requires {least_rao / 1e9:.9g}"
            return Refused(message, fix=f"stake {(least_rao - stake_rao) / 1e9:.9g} alpha more")
        return None

    def spend(self, hotkey: str, now_s: float, receiver: str = "") -> None:
        """Count one request of an admitted caller to one of our hotkeys. Raises RateLimited over its limit."""
        wait_s = self._hotkeys.spend(f"{hotkey} {receiver}", now_s)
        if wait_s > 0:
            rate = self._settings.hotkey_rate
            raise RateLimited(f"your hotkey sends more than {rate:g} requests/s", retry_after_s=wait_s)


def check_addresses(settings: AccessPolicy, prefix: str = "policy") -> None:
    """Raises `ConfigError` for a hotkey on the lists that is not an ss58 address. `prefix`: key of the section."""
    for key, addresses in (("allow", settings.allow), ("deny", settings.deny)):
        for place, address in enumerate(addresses):
            try:
                ss58.decode(address)
            except ValueError as error:
                raise ConfigError(f"{prefix}.{key}[{place}]={address!r}: {error}") from None
