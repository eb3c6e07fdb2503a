"""Performs I/O: the embedded model, one supervised child process that serves a GGUF file by llama.cpp.

`model` owns the child, `process` starts it, `child` is the code that it runs, `weights` finds the installed files, and
`broker` lets the workers of a server share the one child of their supervisor.
"""

from __future__ import annotations

from proxy.upstream.local_model.broker import LocalModelBroker, RemoteLocalModel
from proxy.upstream.local_model.model import Backoff, LocalModel

__all__ = ["Backoff", "LocalModel", "LocalModelBroker", "RemoteLocalModel"]
