"""Subtensor's own pallet and runtime APIs, on the embedded chain.

In: extrinsics of coldkeys and hotkeys, a block number. Out: stake, neurons, weights, epochs, emission, in storage
and events as clients of Subtensor know them (spec_version 425).

    storage, subnet_storage, structs, events, errors      the declarations
    amm, issuance, shares, clock, symbols                 pure arithmetic, no storage
    pools, stake_book, neurons, limits                    the books that the calls below write in
    staking, transfers, registration, subnets, serving, delegation, root_claims, weights, commit_reveal    the calls
    checks                                                what is refused before a call runs
    coinbase, epoch, distribution, timelock, dissolve     what happens by itself, each block
    ledger                                                all TAO added up
    api_*                                                 runtime APIs
"""
