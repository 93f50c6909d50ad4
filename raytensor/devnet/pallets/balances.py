"""Balances (5): TAO in integers of rao, stored in System.Account; transfers, reserves, issuance.

In: calls, and other pallets through `free`, `reducible`, `transfer`, `deposit`, `withdraw`, `reserve`, `unreserve`.
Out: account data, events. Invariant: TotalIssuance = sum of free + reserved over all accounts, to the rao.
Knows nothing of fees or stake. Source of rules and errors: pallet_balances (fungible traits), ED = 500 rao.
"""

from __future__ import annotations

from raytensor.devnet.pallet import DispatchError, Origin, Pallet, StorageValue, call
from raytensor.devnet.pallets.system import DB_READ, DB_WRITE, AccountData, AccountInfo
from raytensor.devnet.subtensor.costs import charged

EXISTENTIAL_DEPOSIT = 500
_RW = DB_READ + DB_WRITE


class Balances(Pallet):
    name, index = "Balances", 5
    TotalIssuance = StorageValue("u64")
    InactiveIssuance = StorageValue("u64")

    constants = {
        "ExistentialDeposit": ("u64", EXISTENTIAL_DEPOSIT),
        "MaxLocks": ("u32", 50),
        "MaxReserves": ("u32", 50),
        "MaxFreezes": ("u32", 50),
    }
    events = {
        "Endowed": (0, {"account": "AccountId32", "free_balance": "u64"}),
        "DustLost": (1, {"account": "AccountId32", "amount": "u64"}),
        "Transfer": (2, {"from": "AccountId32", "to": "AccountId32", "amount": "u64"}),
        "BalanceSet": (3, {"who": "AccountId32", "free": "u64"}),
        "Reserved": (4, {"who": "AccountId32", "amount": "u64"}),
        "Unreserved": (5, {"who": "AccountId32", "amount": "u64"}),
        "Deposit": (7, {"who": "AccountId32", "amount": "u64"}),
        "Withdraw": (8, {"who": "AccountId32", "amount": "u64"}),
        "Minted": (10, {"who": "AccountId32", "amount": "u64"}),
        "Burned": (11, {"who": "AccountId32", "amount": "u64"}),
    }
    errors = """VestingBalance LiquidityRestrictions InsufficientBalance ExistentialDeposit Expendability
        ExistingVestingSchedule DeadAccount TooManyReserves TooManyHolds TooManyFreezes IssuanceDeactivated
        DeltaZero""".split()

    def __init__(self, runtime) -> None:
        super().__init__(runtime)
        # Callbacks for every amount (signed) that this pallet creates or destroys: dust, burn, force_set_balance.
        self.on_own_change: list = []

    def _own_change(self, amount: int) -> None:
        for observer in self.on_own_change:
            observer(amount)

    def genesis(self, config: dict) -> None:
        for account, amount in config.get("balances", ()):
            self.deposit(account, amount)

    def free(self, who: bytes) -> int:
        return self.runtime.System.Account[who].data.free

    def reducible(self, who: bytes, keep_alive: bool = True) -> int:
        """Rao that `who` can spend: the free balance that is not frozen, less the existential deposit if kept alive."""
        info = self.runtime.System.Account[who]
        untouchable = info.data.frozen
        if keep_alive or info.consumers:
            untouchable = max(untouchable, EXISTENTIAL_DEPOSIT)
        return max(info.data.free - untouchable, 0)

    def deposit(self, who: bytes, amount: int, *, emit: bool = False) -> None:
        """Mint `amount` to an account. Raises Token.BelowMinimum below a new account's existential deposit."""
        if amount == 0:
            return
        info = self.runtime.System.Account[who]
        if not info.providers and info.data.free + amount < EXISTENTIAL_DEPOSIT:
            raise DispatchError(("Token", "BelowMinimum"))
        self.TotalIssuance.set(self.TotalIssuance.get() + amount)
        self._put(who, info, info.data.free + amount, info.data.reserved)
        if emit:
            self.emit("Deposit", who, amount)

    def withdraw(self, who: bytes, amount: int, keep_alive: bool = False, *, emit: bool = False) -> None:
        """Burn `amount` of an account. Raises the errors of a transfer."""
        if amount == 0:
            return
        info = self.runtime.System.Account[who]
        self._can_withdraw(info, amount, keep_alive)
        self.TotalIssuance.set(self.TotalIssuance.get() - amount)
        self._put(who, info, info.data.free - amount, info.data.reserved)
        if emit:
            self.emit("Withdraw", who, amount)

    def transfer(self, source: bytes, dest: bytes, amount: int, keep_alive: bool = False) -> None:
        """Move `amount`. Raises Token.FundsUnavailable, NotExpendable, Frozen, BelowMinimum or Arithmetic.Underflow."""
        accounts = self.runtime.System.Account
        info = accounts[source]
        self._can_withdraw(info, amount, keep_alive)
        target = accounts[dest]
        if amount and not target.providers and target.data.free + amount < EXISTENTIAL_DEPOSIT:
            raise DispatchError(("Token", "BelowMinimum"))
        if source == dest:
            return
        if amount:
            self._put(source, info, info.data.free - amount, info.data.reserved)
            self._put(dest, target, target.data.free + amount, target.data.reserved)
        self.emit("Transfer", source, dest, amount)

    def reserve(self, who: bytes, amount: int) -> None:
        """Reserve `amount` of the free balance. Raises InsufficientBalance."""
        info = self.runtime.System.Account[who]
        if info.data.free - max(info.data.frozen, EXISTENTIAL_DEPOSIT) < amount:
            raise self.error("InsufficientBalance")
        if amount:
            self._put(who, info, info.data.free - amount, info.data.reserved + amount)
            self.emit("Reserved", who, amount)

    def unreserve(self, who: bytes, amount: int) -> int:
        """Release up to `amount` of the reserved balance. Returns the part that was not reserved."""
        info = self.runtime.System.Account[who]
        actual = min(amount, info.data.reserved)
        if actual:
            self._put(who, info, info.data.free + actual, info.data.reserved - actual)
            self.emit("Unreserved", who, actual)
        return amount - actual

    def _can_withdraw(self, info: AccountInfo, amount: int, keep_alive: bool) -> None:
        if amount == 0:
            return
        if amount > self.TotalIssuance.get():
            raise DispatchError(("Arithmetic", "Underflow"))
        left = info.data.free - amount
        if left < 0:
            raise DispatchError(("Token", "FundsUnavailable"))
        if left < info.data.frozen:
            raise DispatchError(("Token", "Frozen"))
        if left < EXISTENTIAL_DEPOSIT:
            if info.consumers:
                raise DispatchError(("Token", "OnlyProvider"))
            if keep_alive:
                raise DispatchError(("Token", "NotExpendable"))

    def _put(self, who: bytes, info: AccountInfo, free: int, reserved: int) -> None:
        """Write an account's balances; create or remove the account (frame_system's provider references)."""
        system = self.runtime.System
        nonce, consumers, providers, sufficients, data = info
        if bool(reserved) != bool(data.reserved):
            consumers += 1 if reserved else -1
        born = not providers and free >= EXISTENTIAL_DEPOSIT
        if providers and free < EXISTENTIAL_DEPOSIT and not consumers:
            if free:
                self.TotalIssuance.set(self.TotalIssuance.get() - free)
                self._own_change(-free)
            del system.Account[who]
            system.emit("KilledAccount", who)
            if free:
                self.emit("DustLost", who, free)
            return
        entry = AccountData(free, reserved, data.frozen, data.flags)
        system.Account[who] = AccountInfo(nonce, consumers, 1 if born else providers, sufficients, entry)
        if born:
            system.emit("NewAccount", who)
            self.emit("Endowed", who, free)

    @call(0, weight=charged(85_547))
    def transfer_allow_death(self, origin: Origin, dest: "MultiAddress", value: "Compact<u64>"):
        self.transfer(origin.ensure_signed(), self.runtime.lookup(dest), value)

    @call(2, weight=51_000_000 + 2 * _RW)
    def force_transfer(self, origin: Origin, source: "MultiAddress", dest: "MultiAddress", value: "Compact<u64>"):
        origin.ensure_root()
        self.transfer(self.runtime.lookup(source), self.runtime.lookup(dest), value)

    @call(3, weight=charged(83_102))
    def transfer_keep_alive(self, origin: Origin, dest: "MultiAddress", value: "Compact<u64>"):
        self.transfer(origin.ensure_signed(), self.runtime.lookup(dest), value, keep_alive=True)

    @call(4, weight=50_000_000 + _RW)
    def transfer_all(self, origin: Origin, dest: "MultiAddress", keep_alive: "bool"):
        who = origin.ensure_signed()
        self.transfer(who, self.runtime.lookup(dest), self.reducible(who, keep_alive), keep_alive)

    @call(5, weight=19_000_000 + _RW)
    def force_unreserve(self, origin: Origin, who: "MultiAddress", amount: "u64"):
        origin.ensure_root()
        self.unreserve(self.runtime.lookup(who), amount)

    @call(8, weight=18_000_000 + _RW)
    def force_set_balance(self, origin: Origin, who: "MultiAddress", new_free: "Compact<u64>"):
        origin.ensure_root()
        account = self.runtime.lookup(who)
        info = self.runtime.System.Account[account]
        wanted = new_free if new_free >= EXISTENTIAL_DEPOSIT else 0
        self.TotalIssuance.set(self.TotalIssuance.get() + wanted - info.data.free)
        self._own_change(wanted - info.data.free)
        if wanted or info.providers:
            self._put(account, info, wanted, info.data.reserved)
        self.emit("BalanceSet", account, wanted)

    @call(10, weight=26_000_000 + _RW)
    def burn(self, origin: Origin, value: "Compact<u64>", keep_alive: "bool"):
        who = origin.ensure_signed()
        self.withdraw(who, value, keep_alive)
        self._own_change(-value)
        self.emit("Burned", who, value)
