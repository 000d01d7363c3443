"""nginx with Tollgate's njs script, from the files that the documentation shows."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from tests.plugins.processes import free_port, running

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
SHOWN = Path(__file__).resolve().parents[2] / "docs" / "plugins" / "nginx"


@asynccontextmanager
async def serving(*, tollgate_url: str, provider_url: str, config: str = "nginx.conf") -> AsyncIterator[str]:
    """A documented configuration with other addresses, on a free port; gives its URL."""
    port = free_port()
    folder, answers = await asyncio.to_thread(
        _prepare,
        config,
        port=port,
        tollgate=urlsplit(tollgate_url).netloc,
        provider=urlsplit(provider_url).netloc,
    )
    command = [NGINX or "nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    try:
        async with running([*command, "-g", "daemon off;"], port=port, folder=folder):
            yield f"http://127.0.0.1:{port}"
        left = await asyncio.to_thread(os.listdir, answers)
        assert not left, "answers were left behind"
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)
        await asyncio.to_thread(shutil.rmtree, answers)


def _prepare(name: str, *, port: int, tollgate: str, provider: str) -> tuple[Path, Path]:
    """Where nginx runs, and where it keeps answers."""
    folder, answers = Path(mkdtemp()), Path(mkdtemp(dir="/dev/shm"))
    answers.chmod(0o777)  # nginx's workers are not who runs this
    folder.chmod(0o755)
    places = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    changes = {
        "listen 8080": f"listen 127.0.0.1:{port}",
        "server 127.0.0.1:8000": f"server {tollgate}",
        "server api.openai.com:443": f"server {provider}",
        "https://provider": "http://provider",
        "events {}": f"pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}",
        "http {\n": f"http {{\n    access_log off;\n    client_body_temp_path {folder}/body;\n{places}",
        "load_module modules/": "load_module /usr/lib/nginx/modules/",
        "from tollgate.js": f"from {folder}/tollgate.js",
    }
    if os.geteuid() != 0:
        changes["user www-data;"] = ""
    config = (SHOWN / name).read_text()
    for shown, tried in changes.items():
        assert shown in config, shown
        config = config.replace(shown, tried)
    (folder / "nginx.conf").write_text(config)
    script = (SHOWN / "tollgate.js").read_text()
    assert "'/dev/shm/tollgate'" in script
    (folder / "tollgate.js").write_text(script.replace("'/dev/shm/tollgate'", f"'{answers}'"))
    return folder, answers
