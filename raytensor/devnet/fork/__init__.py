"""The embedded chain from a snapshot of another chain.

values    plain values of a snapshot as values of the embedded chain's types
state     a snapshot in place of the genesis of SubtensorModule; accounts replaced by keys of ours
tempos    many tempos of a forked subnet without a node, as it is and with changes: who earns what
job       the commands: serve a fork, play tempos
"""
