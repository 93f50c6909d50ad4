"""The `validate` job: validators of many subnets with many hotkeys, on one pool of scorers and one chain writer."""
