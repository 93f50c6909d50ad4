"""TAO and alpha of the pallet: balances, the subnet pools, minting and burning.

In: accounts, netuids, amounts in rao. Out: changed reserves and balances; every rao created or destroyed is recorded
in TotalIssuance and in TotalMinted or TotalBurned.
Knows nothing of permissions to trade (staking.py) or of shares (stake_book.py).

A dynamic subnet trades at its pool's price; root and mechanism-0 subnets trade 1:1 without a fee.
"""

from __future__ import annotations

from raytensor.devnet.pallet import DispatchError
from raytensor.devnet.subtensor import amm
from raytensor.devnet.subtensor.amm import Swap, SwapRefused

ROOT = 0
MIN_STAKE_RAO = 2_000_000  # DefaultMinStake
U64_MAX = 2**64 - 1


class Pools:
    def take_balance(self, account: bytes, amount: int, error: str = "NotEnoughBalanceToStake") -> None:
        """Withdraw TAO and keep the account alive. Raises `error` if the balance is too small."""
        if amount > self.spendable(account):
            raise self.error(error)
        self.runtime.Balances.withdraw(account, amount, keep_alive=True)

    def give_balance(self, account: bytes, amount: int) -> None:
        """Deposit TAO; an amount below the existential deposit of a new account is burned."""
        balances = self.runtime.Balances
        if amount < balances.constant("ExistentialDeposit") and not self.runtime.System.Account[account].providers:
            self.book_burn(amount)
        else:
            balances.deposit(account, amount)

    def spendable(self, account: bytes) -> int:
        """Rao that the account can pay while it stays alive."""
        return self.runtime.Balances.reducible(account)

    def book_mint(self, amount: int) -> None:
        self.TotalMinted.set(self.TotalMinted.get() + amount)
        self.TotalIssuance.set(self.TotalIssuance.get() + amount)

    def book_burn(self, amount: int) -> None:
        """Record burned TAO: issuance falls, so it can be minted again. Negative if root created TAO."""
        if amount:
            self.TotalBurned.set(self.TotalBurned.get() + amount)
            self.TotalIssuance.set(self.TotalIssuance.get() - amount)

    def bind(self, store) -> None:
        super().bind(store)
        self.runtime.Balances.on_own_change.append(self._book_outside_change)

    def _book_outside_change(self, amount: int) -> None:
        """Record TAO that Balances created or destroyed: dust, burns, balances set by root."""
        self.book_burn(-amount)

    def add_tao(self, netuid: int, amount: int) -> None:
        self.SubnetTAO[netuid] = self.SubnetTAO[netuid] + amount
        self.TotalStake.set(self.TotalStake.get() + amount)

    def sub_tao(self, netuid: int, amount: int) -> None:
        held = self.SubnetTAO[netuid]
        assert amount <= held, f"pool {netuid} holds {held} rao, {amount} asked"
        self.SubnetTAO[netuid] = held - amount
        self.TotalStake.set(self.TotalStake.get() - amount)

    def is_dynamic(self, netuid: int) -> bool:
        return netuid != ROOT and self.SubnetMechanism[netuid] == 1

    def alpha_price_rao(self, netuid: int) -> int:
        """Rao of TAO for one whole alpha (10^9 rao of alpha)."""
        if not self.is_dynamic(netuid):
            return amm.PRICE_UNIT
        return amm.price_rao(self.SubnetTAO[netuid], self.SubnetAlphaIn[netuid])

    def alpha_price32(self, netuid: int) -> int:
        """Price as U96F32 bits: TAO per alpha."""
        if not self.is_dynamic(netuid):
            return 1 << 32
        alpha = self.SubnetAlphaIn[netuid]
        return (self.SubnetTAO[netuid] << 32) // alpha if alpha else 0

    def alpha_issuance(self, netuid: int) -> int:
        return self.SubnetAlphaIn[netuid] + self.SubnetAlphaOut[netuid]

    def fee_rate(self, netuid: int, fees: bool = True) -> int:
        return self.runtime.Swap.FeeRate[netuid] if fees and self.is_dynamic(netuid) else 0

    def quote_buy(self, netuid: int, tao: int, limit_rao: int | None = None, fees: bool = True) -> Swap:
        """The trade that `tao` rao would make. Raises SwapRefused."""
        if not self.is_dynamic(netuid):
            return Swap(tao, 0, tao)
        return amm.buy(self.SubnetTAO[netuid], self.SubnetAlphaIn[netuid], tao, self.fee_rate(netuid, fees), limit_rao)

    def quote_sell(self, netuid: int, alpha: int, limit_rao: int | None = None, fees: bool = True) -> Swap:
        if not self.is_dynamic(netuid):
            if alpha > self.SubnetTAO[netuid]:
                raise SwapRefused("InsufficientLiquidity")
            return Swap(alpha, 0, alpha)
        rate = self.fee_rate(netuid, fees)
        return amm.sell(self.SubnetTAO[netuid], self.SubnetAlphaIn[netuid], alpha, rate, limit_rao)

    def buy_alpha(self, netuid: int, tao: int, limit_rao: int | None = None, fees: bool = True) -> Swap:
        """Buy with TAO that the caller has withdrawn. The caller must credit `swap.out` rao of alpha; the limit leaves
        `tao - swap.given` unspent. The fee goes to the block's author.
        """
        swap = self.quote_buy(netuid, tao, limit_rao, fees)
        self.add_tao(netuid, swap.paid_in)
        if self.is_dynamic(netuid):
            self.SubnetAlphaIn[netuid] = self.SubnetAlphaIn[netuid] - swap.out
        self.SubnetAlphaOut[netuid] = self.SubnetAlphaOut[netuid] + swap.out
        self.SubnetVolume[netuid] = self.SubnetVolume[netuid] + swap.paid_in
        self.give_balance(self.runtime.author, swap.fee)
        return swap

    def sell_alpha(self, netuid: int, alpha: int, limit_rao: int | None = None, fees: bool = True) -> Swap:
        """Sell alpha that the caller has taken from stake. The caller must deposit `swap.out` rao of TAO.
        The fee, in alpha, is sold too, for the block's author.
        """
        swap = self.quote_sell(netuid, alpha, limit_rao, fees)
        self._alpha_for_tao(netuid, swap.paid_in, swap.out)
        if swap.fee:
            self._sell_fee(netuid, swap.fee)
        self.SubnetVolume[netuid] = self.SubnetVolume[netuid] + swap.out
        return swap

    def _alpha_for_tao(self, netuid: int, alpha: int, tao: int) -> None:
        if self.is_dynamic(netuid):
            self.SubnetAlphaIn[netuid] = self.SubnetAlphaIn[netuid] + alpha
        self.SubnetAlphaOut[netuid] = self.SubnetAlphaOut[netuid] - alpha
        self.sub_tao(netuid, tao)

    def _sell_fee(self, netuid: int, alpha: int) -> None:
        try:
            fee = amm.sell(self.SubnetTAO[netuid], self.SubnetAlphaIn[netuid], alpha)
        except SwapRefused:
            # The alpha is worth less than a rao, or the pool is at its minimum: recycle it.
            self.SubnetAlphaOut[netuid] = self.SubnetAlphaOut[netuid] - alpha
            return
        self._alpha_for_tao(netuid, fee.paid_in, fee.out)
        self.give_balance(self.runtime.author, fee.out)

    def recycle_alpha_out(self, netuid: int, alpha: int) -> None:
        """Remove alpha from the issuance; it can be minted again."""
        self.SubnetAlphaOut[netuid] = self.SubnetAlphaOut[netuid] - min(alpha, self.SubnetAlphaOut[netuid])

    def swap_error(self, refused: SwapRefused) -> DispatchError:
        """The dispatch error of a refused trade; low reserves are this pallet's InsufficientLiquidity."""
        if refused.name in ("ReservesTooLow", "InsufficientLiquidity"):
            return self.error("InsufficientLiquidity")
        return self.runtime.Swap.error(refused.name)
