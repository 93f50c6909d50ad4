"""Everything that speaks to a chain: reads, plans, signs, sends, and says what became of each item.

    Intent -> (desk) waits -> (preflight, weights, batcher) plan -> (journal) written -> (client) sent
           -> (events) outcome per item -> Receipt;   commits -> (commit_desk) revealed in their epoch

    calls       what can be asked of the chain, as small frozen dataclasses
    weights     hotkeys and real numbers -> uids and u16, as the chain wants them
    batcher     intents -> as few extrinsics as the chain allows; pure
    events      the events of an extrinsic -> the outcome of each of its items; pure
    errors      what a node or a runtime answered -> the error's name; pure
    actions     error names -> what to do about them; pure
    journal     what was meant, what was sent, what became of it; SQLite
    commit_book, commit_reveal, commit_desk   commits on disk; the pure rules; made, watched and revealed
    beacon, timelock   whether the chain can open commits itself; the encryption
    preflight   what the chain would say to weights before they are sent
    watchdog    are weights overdue, and why; pure
    policy, gate   what may be done with money; what passes, and the record of it
    lease       who may write with a key
    wallet      references to keys, Bittensor's key files
    transport   a websocket with a deadline per request
    connection  one websocket at a time over several endpoints, left when they fail, lag, limit or stand still
    runtime     what the chain's metadata says: storage keys, types, calls, error names
    client      reads and single submissions
    metagraph   a subnet at one block; metagraph_api is the runtime call that it is read by
    snapshots   subnets that many readers share, with their age; a named Ray actor
    history     a subnet's epochs as Parquet files
    outbox      signed extrinsics on their way, until each one's fate is known
    desk        the orders that wait, and who waits for them
    pipeline    the writer's work, one look at the chain at a time
    actor       the only writer
    bootstrap   a subnet on a development chain, made by ordinary extrinsics

The only room that imports substrateinterface. It knows nothing of miners, validators or scores.
"""
