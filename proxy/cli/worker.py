"""Orchestrates: one worker of several; uvicorn's supervisor calls `application` in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

from proxy.cli.settings import config_files, read_config
from proxy.cli.sighup import hangup_handler
from proxy.config.namespace import enabled
from proxy.server.app import Application, Options, server_auth
from proxy.server.log import build_log
from proxy.upstream.local_model import RemoteLocalModel

BROKER_VARIABLE = "PROXY_LOCAL_MODEL_SOCKET"
METRICS_VARIABLE = "PROXY_METRICS_FOLDER"


def application() -> object:
    """The ASGI application, from the environment that `proxy serve` prepared; the embedded model is the
    supervisor's.
    """
    threading.Thread(target=_follow_parent, daemon=True).start()
    config = read_config({}, os.environ)
    path = os.environ[BROKER_VARIABLE]
    names = [name for name, provider in enabled(config).items() if provider.local_model is not None]
    models = {name: RemoteLocalModel(path, name) for name in names}
    metrics_folder = Path(os.environ[METRICS_VARIABLE])
    log = build_log(config.server.log_format)
    files = config_files({}, os.environ)
    app = Application(config, models, server_auth(os.environ, config), log, Options(metrics_folder, files))
    signal.signal(signal.SIGHUP, hangup_handler(app.reload_soon, may_stop=False))  # that is for the supervisor
    return app.asgi


def _follow_parent() -> None:
    """Ends this worker when its supervisor is gone, also by kill -9: nobody would restart or stop it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
