"""Performs I/O: HTTP/1.1 towards clients, under uvicorn: connections with limits, and a signal when a client leaves."""

from proxy.server.http1.connections import Connections, Limits
from proxy.server.http1.peer import Peer, peer_of
from proxy.server.http1.protocol import HTTP1Protocol
from proxy.server.http1.system import give_back, map_large_blocks, most_connections

__all__ = [
    "Connections",
    "HTTP1Protocol",
    "Limits",
    "Peer",
    "give_back",
    "map_large_blocks",
    "most_connections",
    "peer_of",
]
