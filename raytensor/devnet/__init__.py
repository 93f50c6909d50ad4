"""The embedded chain: a Subtensor chain for development, in one process on one loopback port.

In: extrinsics and queries over JSON-RPC. Out: blocks, storage, events, runtime API results.
Knows nothing of Ray, torch, miners or validators. Other rooms import only `launch`.

    scale, typedefs      type strings in Rust's notation -> codecs
    pallet, store        how pallets are declared; their storage
    runtime              dispatch and blocks;  metadata  V14 and V15 from the declarations
    fork                 a chain that goes on from the state of another one's subnet
    extrinsic, pool, author, rpc, server, persist   the node around the runtime
"""
