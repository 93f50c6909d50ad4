"""Everything that speaks to a chain: reads, plans, signs, sends, and says what became of each item.

    Intent -> (weights, batcher) plan -> (journal) written -> (client) sent -> (events) outcome per item -> Receipt

    calls       what can be asked of the chain, as small frozen dataclasses
    weights     hotkeys and real numbers -> uids and u16, as the chain wants them
    batcher     intents -> as few extrinsics as the chain allows; pure
    events      the events of an extrinsic -> the outcome of each of its items; pure
    errors      error names and pool codes -> what to do about them; pure
    journal     what was meant, what was sent, what became of it; SQLite
    wallet      references to keys, Bittensor's key files
    transport   a websocket with a deadline per request
    connection  one websocket at a time over several endpoints, left when they fail, lag, limit or stand still
    runtime     what the chain's metadata says: storage keys, types, calls, error names
    client      reads and single submissions
    metagraph   a subnet at one block; metagraph_api is the runtime call that it is read by
    snapshots   subnets that many readers share, with their age; a named Ray actor
    history     a subnet's epochs as Parquet files
    actor       the only writer
    bootstrap   a subnet on a development chain, made by ordinary extrinsics

The only room that imports substrateinterface. It knows nothing of miners, validators or scores.
"""
