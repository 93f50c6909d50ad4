"""JSON-RPC of a Substrate node: the protocol, and the methods in groups by their prefix."""

from raytensor.devnet.rpc.node_rpc import NodeRpc

__all__ = ["NodeRpc"]
