"""Incentive mechanisms: what validators ask, how answers are scored, how scores become weights. Pure: no Ray, no torch."""
