"""Speaks to a node: sockets, client, runtime metadata, codec, events."""
