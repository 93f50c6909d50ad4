"""Everything that speaks to a chain: reads, plans, signs, sends, and reports the outcome of each item.

    Intent -> (orders) queued -> (preflight, weights, batcher) planned -> (outbox, journal) recorded, signed, sent
           -> (rpc/events) outcome per item -> Receipt;   weights with commit-reveal -> (commits) revealed in time

    calls, intents             what can be asked of the chain
    weights                    hotkeys and real numbers -> uids and u16
    errors, error_actions      names of errors; the one table of what to do about each
    ss58, wallet               addresses; key references and Bittensor's key files
    bulk_submitter, bootstrap  set-up of development chains, without a journal
    rpc/     transport, connection, client, runtime, codec, scale_reader, events
    reads/   metagraph, metagraph_api, follower, history, commitments, quotes, preflight, watchdog,
             state, state_file (snapshots of subnets)
    writer/  writer, actor, settings, orders, thread, pipeline, outbox, journal, lease, batcher, limits, policy,
             policy_check, audit, commits, commit_rules, commit_book, beacon, timelock

rpc imports nothing of reads, and reads nothing of writer. The only package that imports substrateinterface. It knows
nothing of miners, validators or scores.
"""
