"""Orchestrates: one worker of several. uvicorn's supervisor calls `application` in each worker process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

from proxy.cli.interpreter import tune
from proxy.cli.settings import config_files, read_config
from proxy.cli.sighup import hangup_handler
from proxy.config.namespace import enabled
from proxy.server.app import Application, Options, server_auth
from proxy.server.log import build_log
from proxy.server.telemetry.signals import signals
from proxy.server.web.site import SECRET_VARIABLE
from proxy.upstream.local_model import RemoteLocalModel

BROKER_VARIABLE = "PROXY_LOCAL_MODEL_SOCKET"
METRICS_VARIABLE = "PROXY_METRICS_FOLDER"


def application() -> object:
    """The ASGI application, built from the environment that `proxy serve` prepared.

    The embedded model belongs to the supervisor; this process only talks to it.
    """
    threading.Thread(target=_follow_parent, daemon=True).start()
    config = read_config({}, os.environ)
    path = os.environ[BROKER_VARIABLE]
    names = [name for name, provider in enabled(config).items() if provider.local_model is not None]
    models = {name: RemoteLocalModel(path, name) for name in names}
    metrics_folder = Path(os.environ[METRICS_VARIABLE])
    log = build_log(config.server.log_format)
    files = config_files({}, os.environ)
    secret = bytes.fromhex(os.environ[SECRET_VARIABLE])
    options = Options(metrics_folder, files, signals=signals(os.environ), pages_secret=secret)
    app = Application(config, models, server_auth(os.environ, config), log, options)
    signal.signal(signal.SIGHUP, hangup_handler(app.reload_soon, may_stop=False))  # the supervisor decides
    tune()
    return app.asgi


def _follow_parent() -> None:
    """Stops this worker when its supervisor is gone, even by kill -9: nothing would restart or stop it afterwards."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
