"""The compiled inner loops of the fast epoch. In: plain arrays. Out: plain arrays, bit for bit those of the reference.

stake (who counts and for how much), layout (one layout into the other), dense (all pairs stored), sparse (few pairs stored), liquid (the alpha of each
pair), arithmetic (the chain's roundings), jit (how they are compiled and kept). Nothing here knows `EpochInput`.
"""
