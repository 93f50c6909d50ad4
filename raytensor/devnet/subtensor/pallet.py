"""SubtensorModule (7), composed of the parts that the package's docstring lists."""

from __future__ import annotations

from raytensor.devnet.pallet import Pallet
from raytensor.devnet.subtensor.alpha_fees import AlphaFees
from raytensor.devnet.subtensor.checks import Checks
from raytensor.devnet.subtensor.coinbase import Coinbase
from raytensor.devnet.subtensor.coldkey_swap import ColdkeySwaps
from raytensor.devnet.subtensor.commit_reveal import CommitCalls
from raytensor.devnet.subtensor.delegation import DelegationCalls
from raytensor.devnet.subtensor.dissolve import Dissolution
from raytensor.devnet.subtensor.distribution import Distribution
from raytensor.devnet.subtensor.epoch import Epochs
from raytensor.devnet.subtensor.errors import CUSTOM_CODES, ERRORS
from raytensor.devnet.subtensor.events import EVENTS
from raytensor.devnet.subtensor.genesis import Genesis
from raytensor.devnet.subtensor.hotkey_swap import HotkeySwaps
from raytensor.devnet.subtensor.left_out import LeftOut
from raytensor.devnet.subtensor.limits import Limits
from raytensor.devnet.subtensor.neurons import Neurons
from raytensor.devnet.subtensor.null_epochs import NullEpochs
from raytensor.devnet.subtensor.pools import MIN_STAKE_RAO, Pools
from raytensor.devnet.subtensor.pow_registration import PowRegistration
from raytensor.devnet.subtensor.registration import RegistrationCalls
from raytensor.devnet.subtensor.root_claims import RootClaims
from raytensor.devnet.subtensor.serving import ServingCalls
from raytensor.devnet.subtensor.stake_book import StakeBook
from raytensor.devnet.subtensor.staking import StakeCalls
from raytensor.devnet.subtensor.storage import RAO, GlobalStorage
from raytensor.devnet.subtensor.subnet_storage import SubnetStorage
from raytensor.devnet.subtensor.subnets import SubnetCalls
from raytensor.devnet.subtensor.timelock import TimelockedReveals
from raytensor.devnet.subtensor.transfers import MoveCalls
from raytensor.devnet.subtensor.weights import WeightCalls


class SubtensorModule(
    WeightCalls,
    CommitCalls,
    StakeCalls,
    MoveCalls,
    RegistrationCalls,
    PowRegistration,
    SubnetCalls,
    ServingCalls,
    DelegationCalls,
    RootClaims,
    HotkeySwaps,
    ColdkeySwaps,
    AlphaFees,
    LeftOut,
    Checks,
    Coinbase,
    Distribution,
    Epochs,
    NullEpochs,
    TimelockedReveals,
    Dissolution,
    Neurons,
    StakeBook,
    Pools,
    Limits,
    Genesis,
    GlobalStorage,
    SubnetStorage,
    Pallet,
):
    name, index = "SubtensorModule", 7
    events = EVENTS
    errors = ERRORS
    custom_codes = CUSTOM_CODES
    constants = {
        "InitialTempo": ("u16", 360),
        "InitialMaxAllowedUids": ("u16", 256),
        "InitialBurn": ("u64", RAO // 10),
        "InitialMinStake": ("u64", MIN_STAKE_RAO),
        "InitialNetworkMinLockCost": ("u64", 1_000 * RAO),
        "InitialTaoWeight": ("u64", 971_718_665_099_567_868),
        "InitialStartCallDelay": ("u64", 0),
    }
