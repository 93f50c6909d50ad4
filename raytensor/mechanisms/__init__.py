"""Incentive mechanisms: questions, scores of answers, weights from scores. Pure: no Ray, no torch."""
