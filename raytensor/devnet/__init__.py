"""The embedded development chain: a Subtensor as its clients see it, in one process on one loopback port.

In: extrinsics and queries over JSON-RPC. Out: blocks, storage, events, runtime API results.
Knows nothing of Ray, torch, miners or validators; nothing imports it but the launcher.

    scale, typedefs      type strings in Rust's notation -> codecs
    pallet, store        the language in which pallets are declared; their storage
    runtime              dispatch, blocks;  metadata  V14 and V15 from the declarations
    extrinsic, pool, author, rpc, server, persist   the node around the runtime
"""
