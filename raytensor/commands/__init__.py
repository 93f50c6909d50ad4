"""The short commands; the table in `raytensor.cli` registers them. One module each: `NAME_main(argv) -> exit status`.

    options      the options that commands share, and how their values are read
    output       tables and JSON, errors and exit statuses
    sending      plan -> confirmation -> chain writer -> receipt
    delegation, commitments, consensus_chain, consensus_cluster   parts of stake, weights and consensus

No other room imports a command.
"""
