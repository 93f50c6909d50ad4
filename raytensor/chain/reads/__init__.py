"""Reads a chain: metagraphs, followers, snapshots, quotes, checks before a submission."""
