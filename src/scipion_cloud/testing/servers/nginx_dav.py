"""nginx with its WebDAV modules (Debian: nginx-light, libnginx-mod-http-dav-ext).

with nginx_dav(tmp_path) as server:
    open_storage(server.url, server.credentials)
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.daemon import free_port
from scipion_cloud.testing.servers.davserver import PASSWORD, USER, DavServer, dav_server

MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")


@contextmanager
def nginx_dav(folder: Path, *, locks: bool = True) -> Iterator[DavServer]:
    """Serve `folder`/files, with LOCK if `locks`. Raises SetupError where nginx or its module is missing."""
    nginx = shutil.which("nginx", path=os.defpath + ":/usr/sbin:/sbin")
    if nginx is None or not MODULE.exists():
        raise SetupError(
            "nginx or its WebDAV module is missing. "
            "Run: apt-get install -y nginx-light libnginx-mod-http-dav-ext"
        )
    files, temporary, port = folder / "files", folder / "temporary", free_port()
    files.mkdir()
    temporary.mkdir()
    config, users = folder / "nginx.conf", folder / "users"
    users.write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    config.write_text(_config(folder, port, locks))
    command: list[str | Path] = [nginx, "-e", folder / "nginx.log", "-c", config]
    with dav_server(command, port, files, folder / "nginx.log") as server:
        yield server


def _config(folder: Path, port: int, locks: bool) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = " ".join(f"{kind}_temp_path {folder}/temporary/{kind};" for kind in kinds)
    # root's workers would be nobody's, who cannot read a test's folder
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
daemon off; {user} worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
load_module {MODULE};
events {{ worker_connections 256; }}
http {{
    access_log off; {places}
    sendfile on; default_type application/octet-stream; client_max_body_size 0;
    keepalive_requests 100000;
    {"dav_ext_lock_zone zone=locks:1m timeout=60s;" if locks else ""}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            root {folder}/files;
            auth_basic "files"; auth_basic_user_file {folder}/users;
            dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND OPTIONS {"LOCK UNLOCK" if locks else ""};
            {"dav_ext_lock zone=locks;" if locks else ""}
            dav_access user:rw;
        }}
    }}
}}
"""
