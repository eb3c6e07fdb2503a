"""Translates: the other gateways, in the order of the page."""

from __future__ import annotations

from bench.peers.litellm import VERSIONS, LiteLLM
from bench.peers.nginx import Nginx
from bench.peers.portkey import Portkey
from bench.peers.smg import Smg
from bench.peers.tensorzero import TensorZero
from bench.peers.unavailable import Unavailable
from bench.trials import Gateway


def peers() -> list[Gateway]:
    """All of them, and those that are not to be had, with the reason."""
    return [
        *(Nginx(), TensorZero(), Smg(), Portkey(), *map(LiteLLM, VERSIONS)),
        Unavailable("bifrost 1.6.3", "its package contains no gateway: it downloads one when it starts"),
        Unavailable("busbar", "no package registry has it; the crate of this name is a reservation"),
    ]
