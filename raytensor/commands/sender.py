"""For whom a command sends: the wallet's own account, one that made it its proxy, or a multisig account.

In: --proxy-for and --multisig beside the wallet. Out: a `Sender`; the orders of the command name its account as signer.
A proxy's orders go through the chain writer's delegate; an approval of a multisig is an order of its own, by the name
of the wrapped one. Source: pallets Proxy and Multisig.
"""

import argparse
import hashlib
from dataclasses import dataclass
from typing import Any

from raytensor.chain import ss58
from raytensor.chain.calls import Call, Intent
from raytensor.chain.named_call import NamedCall
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import KeyRef
from raytensor.commands import options
from raytensor.errors import ChainRefused, ConfigError

PREFIX = b"modlpy/utilisuba"  # of what the address of a multisig is a hash of (pallet_multisig::multi_account_id)


@dataclass(frozen=True)
class Sender:
    """ss58: the account in whose name the orders run. key: the key that signs, and whose account pays the fee.

    threshold  approvals that an order needs; 0: the account is no multisig. others: the other signatories, as sorted.
    """

    ss58: str
    key: KeyRef
    threshold: int = 0
    others: tuple[str, ...] = ()

    @property
    def is_proxy(self) -> bool:
        return not self.threshold and self.ss58 != self.key.ss58

    def carried(self, client: ChainClient, call: Call) -> Call:
        """The call that is signed for a call of the account."""
        if self.is_proxy:
            return Call("Proxy", "proxy", {"real": self.ss58, "force_proxy_type": None, "call": call})
        if not self.threshold:
            return call
        others = {"other_signatories": list(self.others)}
        if self.threshold == 1:
            return Call("Multisig", "as_multi_threshold_1", others | {"call": call})
        cost = client.fee(call, ss58.decode(self.ss58))[1]
        weight = {
            "ref_time": cost.ref_time,
            "proof_size": client.constant("System", "BlockWeights")["max_block"]["proof_size"],
        }
        begun = self.begun(client, call)
        when = {"maybe_timepoint": begun and begun["when"], "call": call, "max_weight": weight}
        return Call("Multisig", "as_multi", {"threshold": self.threshold, **others, **when})

    def begun(self, client: ChainClient, call: Call) -> dict[str, Any] | None:
        """What the chain has of this call while it lacks approvals: when, depositor, approvals."""
        return client.query("Multisig", "Multisigs", [self.ss58, call_hash(client, call)])

    def orders(self, client: ChainClient, intents: list[Intent]) -> list[Intent]:
        """The intents as the chain writer gets them."""
        if not self.threshold:
            return intents
        carried = [(intent.intent_id, self.carried(client, intent.call())) for intent in intents]
        return [NamedCall.of(self.key.ss58, name, call) for name, call in carried]

    def effect(self, client: ChainClient, intent: Intent) -> dict[str, Any]:
        """What the plan says of the way. Raises ChainRefused if the key may not act for the account."""
        if self.is_proxy:
            types = self._types(client)
            if not types:
                message = f"{self.key.ss58} is no proxy of {self.ss58} that may act at once"
                action = f"fix: raytensor proxy add {self.key.ss58} -w WALLET_OF_THE_ACCOUNT"
                raise ChainRefused(message, name="NotProxy", action=action)
            return {"for": f"{self.ss58}, which made the signer its proxy ({', '.join(types)})"}
        if not self.threshold:
            return {}
        call, begun = intent.call(), self.begun(client, intent.call())
        given = begun["approvals"] if begun else []
        if self.key.ss58 in given:
            message = f"{self.key.ss58} has approved this order; {len(given)} of {self.threshold} have"
            raise ChainRefused(message, name="AlreadyApproved", action="wait: until another signatory sends the same")
        shown = {"for": f"the multisig account {self.ss58}", "call_hash": call_hash(client, call)}
        last = len(given) + 1 >= self.threshold
        shown["approval"] = f"{len(given) + 1} of {self.threshold}" + (": the order is carried out" if last else "")
        if begun:
            shown["timepoint"] = f"block {begun['when']['height']}, extrinsic {begun['when']['index']}"
        return shown | ({} if last else {"call": "0x" + client.runtime.encode_call(call).hex()})

    def _types(self, client: ChainClient) -> list[str]:
        proxies, _deposit = client.query("Proxy", "Proxies", [self.ss58])
        return [one["proxy_type"] for one in proxies if one["delegate"] == self.key.ss58 and one["delay"] == 0]


def call_hash(client: ChainClient, call: Call) -> str:
    """The BLAKE2b-256 hash of an encoded call, by which a multisig names it."""
    return "0x" + hashlib.blake2b(client.runtime.encode_call(call), digest_size=32).hexdigest()


def multisig_account(signatories: list[str], threshold: int) -> tuple[str, list[str]]:
    """(ss58 address, sorted signatories) of a multisig (pallet_multisig::multi_account_id)."""
    keys = sorted(ss58.decode(one) for one in signatories)
    count = len(keys)
    length = (count << 2).to_bytes(1, "little") if count < 64 else (count << 2 | 1).to_bytes(2, "little")
    data = PREFIX + length + b"".join(keys) + threshold.to_bytes(2, "little")
    return ss58.encode(hashlib.blake2b(data, digest_size=32).digest()), [ss58.encode(key) for key in keys]


def sender_of(args: argparse.Namespace, *, hotkey: bool = False) -> Sender:
    """The account of this command and the key that signs: the wallet's coldkey, or its hotkey."""
    key = options.hotkey_ref(args) if hotkey else options.coldkey_ref(args)
    if args.proxy_for and args.multisig:
        raise ConfigError("--proxy-for and --multisig: give one of the two")
    if args.proxy_for:
        return Sender(options.account(args, args.proxy_for, hotkey=hotkey), key)
    if not args.multisig:
        return Sender(key.ss58, key)
    threshold, colon, names = args.multisig.partition(":")
    given = [options.account(args, name, hotkey=hotkey) for name in names.split(",") if name]
    if not (colon and threshold.isdecimal() and threshold.isascii()):
        raise ConfigError(f"--multisig {args.multisig!r}: give THRESHOLD:ACCOUNT,ACCOUNT,... with all signatories")
    everyone, needed = sorted({*given, key.ss58}), int(threshold)
    if len(set(given)) != len(given) or not 1 <= needed <= len(everyone) or len(everyone) < 2:
        message = "each signatory once, and a threshold of at least 1 and at most their number"
        raise ConfigError(f"--multisig {args.multisig}: give {message}; there are {len(everyone)} with {key.ss58}")
    address, signatories = multisig_account(everyone, needed)
    return Sender(address, key, needed, tuple(one for one in signatories if one != key.ss58))
