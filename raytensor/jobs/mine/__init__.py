"""The `mine` job: miners of your own hotkeys, trained and served, on any subnets of any chain."""
