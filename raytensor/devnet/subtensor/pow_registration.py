"""Registration by proof of work: no burn, no fee, where the owner allows it.

In: pow_register by a coldkey with a nonce whose seal meets the subnet's difficulty. Out: a uid; the difficulty rises as
the burn price does. The seal binds the subnet, a recent block, hotkey and coldkey. Source: subnets/registration.rs.
"""

from __future__ import annotations

from hashlib import sha256

from Crypto.Hash import keccak

from raytensor.devnet.pallet import Origin, StorageMap, call
from raytensor.devnet.subtensor import issuance
from raytensor.devnet.subtensor.costs import ref_time
from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.storage import ACCOUNT

DOMAIN = b"subtensor-pow-register-v1"
MAX_AGE_BLOCKS = 5


def seal(netuid: int, block_hash: bytes, hotkey: bytes, coldkey: bytes, nonce: int) -> bytes:
    """keccak256(sha256(domain, netuid, block hash, hotkey, coldkey, nonce)), integers little endian. 32 bytes."""
    message = DOMAIN + netuid.to_bytes(2, "little") + block_hash + hotkey + coldkey + nonce.to_bytes(8, "little")
    return keccak.new(digest_bits=256, data=sha256(message).digest()).digest()


def meets(work: bytes, difficulty: int) -> bool:
    """Whether the seal, as a big-endian number, times the difficulty stays below 2^256."""
    return int.from_bytes(work, "big") * max(difficulty, 1) < 1 << 256


class PowRegistration:
    LastPowRegistrationBlock = StorageMap([ACCOUNT], "u64", optional=True)

    @call(152, pays=False, weight=ref_time(337_000_000, 34, 29))
    def pow_register(
        self, origin: Origin, netuid: "u16", work_block: "u64", nonce: "u64", work: "[u8; 32]", hotkey: "AccountId32"
    ):
        coldkey = origin.ensure_signed()
        self.check_pow(coldkey, netuid, work_block, nonce, work, hotkey)
        if self.RegistrationsThisBlock[netuid] >= self.MaxRegistrationsPerBlock[netuid]:
            raise self.error("TooManyRegistrationsThisBlock")
        self.require_free_hotkey(coldkey, netuid, hotkey)
        self.LastPowRegistrationBlock[hotkey] = work_block
        self.place_neuron(coldkey, netuid, hotkey)
        low, high = self.MinDifficulty[netuid], self.MaxDifficulty[netuid]
        multiplier = self.BurnIncreaseMult[netuid]
        self.Difficulty[netuid] = issuance.bumped_burn_rao(self.Difficulty[netuid], multiplier, low, high)

    def check_pow(self, coldkey: bytes, netuid: int, work_block: int, nonce: int, work: bytes, hotkey: bytes) -> None:
        """The pool's check: the subnet allows it, a recent block newer than the hotkey's last, the seal."""
        if netuid == ROOT:
            raise self.error("RegistrationNotPermittedOnRootSubnet")
        self.require_subnet(netuid)
        if not self.NetworkPowRegistrationAllowed[netuid]:
            raise self.error("SubNetRegistrationDisabled")
        age, last = self.runtime.block_number - work_block, self.LastPowRegistrationBlock[hotkey]
        if not 0 <= age <= MAX_AGE_BLOCKS or (last is not None and work_block <= last):
            raise self.error("InvalidWorkBlock")
        block_hash = self.runtime.System.BlockHash.get(work_block)  # the head's own is stored by the next block
        if block_hash is None:
            raise self.error("InvalidWorkBlock")
        if bytes(work) != seal(netuid, block_hash, hotkey, coldkey, nonce):
            raise self.error("InvalidSeal")
        if not meets(bytes(work), self.Difficulty[netuid]):
            raise self.error("InvalidDifficulty")

    def decay_difficulties(self, netuids: list[int]) -> None:
        """Difficulty halves in BurnHalfLife blocks, down to MinDifficulty."""
        for netuid in netuids:
            difficulty, low = self.Difficulty[netuid], self.MinDifficulty[netuid]
            if netuid != ROOT and difficulty > low:
                high = max(self.MaxDifficulty[netuid], low)
                self.Difficulty[netuid] = issuance.decayed_burn_rao(difficulty, self.BurnHalfLife[netuid], low, high)
