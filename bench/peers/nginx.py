"""Performs I/O: nginx as a plain proxy: what it costs to pass bytes through, and nothing else. It is Debian's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Target
from bench.peers.peer import Peer, RunningPeer
from bench.process import NotServed, free_port, listening

_CONFIG = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/nginx-access.log;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    client_max_body_size 64m;
    client_body_buffer_size 8m;
    keepalive_requests 1000000;
    upstream fake {{ server {host}; keepalive 512; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://fake;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Nginx(Peer):
    """Without a key, limits or metering; its access log is on."""

    name = "nginx"
    share = 4.0  # it is so cheap that fewer requests would not show in the clock of processes

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[RunningPeer]:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            raise NotServed("nginx is not installed (Debian: apt-get install nginx-light)")
        port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""  # its worker writes into our temporary folder
        host = upstream_url.split("/")[2]
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, host=host, port=port, user=user))
        command = [program, "-p", str(folder), "-e", str(folder / "nginx-error.log"), "-c", str(config)]
        with listening(command, port, folder / "nginx.log", cores) as process:
            yield RunningPeer(process, Target(port))
