"""Commands that speak to a chain: wallet, transfer, stake, register, subnets, metagraph, weights.

    options   the options that commands share, and how their values are read
    output    tables and JSON, errors and exit statuses
    delegation, commitments   parts of stake and weights
    sending   plan -> confirmation -> writer -> receipt
    wallet, transfer, stake, register, subnets, metagraph, weights   one command each: `NAME_main(argv) -> exit status`

Each command is a user of the room's parts like any other program; nothing imports them but the `raytensor` command.
"""
