"""Miners: identities with models that train and answer, and the actors that host them."""
