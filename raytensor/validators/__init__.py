"""Validators: scoring responses, and keeping each miner's score."""
