"""Substrate's own pallets, one per file, with Subtensor's constants and rules. SubtensorModule has its own room."""
