"""Subtensor's own pallet and runtime APIs, on the embedded chain.

In: extrinsics of coldkeys and hotkeys, a block number. Out: stake, neurons, weights, epochs, emission, in storage
and events in Subtensor's format (spec_version 475).

    storage, subnet_storage, structs, events, errors      the declarations
    amm, issuance, shares, clock, symbols                 pure arithmetic, no storage
    pools, stake_book, neurons, limits                    state that the calls below change
    staking, transfers, registration, subnets, serving, delegation, root_claims, weights, commit_reveal    the calls
    checks                                                checks before a call runs (transaction extension)
    coinbase, epoch, distribution, timelock, dissolve     the work of each block
    ledger                                                the sum of all TAO
    api_*                                                 runtime APIs
"""
