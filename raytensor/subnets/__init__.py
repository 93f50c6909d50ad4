"""For the authors of subnet packages: a chain and a served miner for their tests, and the template of a package."""
