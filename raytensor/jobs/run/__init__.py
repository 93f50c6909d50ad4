"""The `run` job: a whole network on one machine or cluster, in lockstep."""
