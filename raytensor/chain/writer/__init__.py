"""Writes to a chain: orders, journal, batches, outbox, lease, commit-reveal, policy and audit log."""
