"""The compiled inner loops of the fast epoch. In: plain arrays. Out: plain arrays, bit for bit the reference's.

stake (who counts and for how much), layout (one layout into the other), dense (all pairs stored), sparse (few pairs
stored), column (one miner), liquid (the alpha of each pair), arithmetic (the chain's rounding), whole (a dense epoch in
one call), jit (compilation and cache). Knows nothing of `EpochInput`.
"""
