"""nginx with nchan, where both are installed (Debian: nginx-light, libnginx-mod-nchan): what C gets out of the machine.

It keeps messages in memory and knows no tokens, mailboxes or receipts; a subscriber gets what is published after it
has asked.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
START_S = 10.0

CONFIG = """
load_module {module};
worker_processes 1;
daemon off;
pid {place}/pid;
error_log {place}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    nchan_message_buffer_length 10000;
    nchan_message_timeout 1h;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/api/events/wait/(\\w[\\w-]*)$ {{
            nchan_subscriber longpoll;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/api/events/(\\w[\\w-]*)$ {{
            nchan_publisher;
            nchan_channel_id $1;
        }}
    }}
}}
"""


def is_installed() -> bool:
    return shutil.which("nginx") is not None and MODULE.exists()


@contextmanager
def nchan() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process and its port."""
    with tempfile.TemporaryDirectory(prefix="bench-nchan-") as place:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        config = Path(place) / "nginx.conf"
        config.write_text(CONFIG.format(module=MODULE, place=place, port=port))
        Path(place).chmod(0o755)  # the worker runs as another user, and has to pass
        process = subprocess.Popen(["nginx", "-p", place, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            _wait_for(process, port)
            yield process, port
        finally:
            process.terminate()
            process.wait(START_S)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            continue
        return
    raise RuntimeError(f"nginx did not start within {START_S:g} s, exit code {process.poll()}")
