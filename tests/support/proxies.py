"""Real proxies before gateways and intake, configured by the blocks of docs/proxies.md."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import ROOT, ended_with_its_own

PAGE = ROOT / "docs" / "proxies.md"
PROGRAMS = {"nginx": "nginx", "haproxy": "haproxy", "caddy": "caddy", "apache": "apache2"}

GATEWAY, ADMIN, INTAKE, PROXY = "127.0.0.1:8092", "port 8093", "127.0.0.1:8192", "127.0.0.1:8080"
PATIENCE = 1.0
"""Seconds in which a proxy may end by itself."""

NUMBERS = ("one", "two", "three")

AROUND_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
uwsgi_temp_path {folder}; scgi_temp_path {folder};
{block} }}
"""

AROUND_CADDY = "{{\n admin off\n}}\n{block}"

APACHE_MODULES = (
    *("mpm_event", "authz_core", "proxy", "proxy_http", "slotmem_shm", "proxy_balancer", "lbmethod_bybusyness"),
    *("headers", "alias", "asis", "filter", "deflate"),
)
AROUND_APACHE = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen {address}
User www-data
Group www-data
{modules}
{block}
"""


class ProxyMissing(Exception):
    """A proxy's program is not there; says which."""


class Upstream(NamedTuple):
    """A gateway that is to be stood before: `127.0.0.1:8092`, and its admin port."""

    address: str
    admin_port: int


def block(language: str) -> str:
    """Return the page's block of this kind, as it stands."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, language
    return found[1]


def program(name: str) -> str:
    """Return where a proxy's program is. Raises: ProxyMissing."""
    found = shutil.which(PROGRAMS[name], path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        raise ProxyMissing(f"there is no {PROGRAMS[name]}")
    return found


def configured(name: str, port: int, gateways: Sequence[Upstream], intake: str = INTAKE) -> str:
    """Return a proxy's block for these ports: the lines that name the gateway once for each."""
    lines: list[str] = []
    for line in block(name).replace(PROXY, f"127.0.0.1:{port}").replace(INTAKE, intake).splitlines():
        if GATEWAY not in line:
            lines.append(line)
            continue
        for number, gateway in zip(NUMBERS, gateways, strict=False):
            own = line.replace(GATEWAY, gateway.address).replace(ADMIN, f"port {gateway.admin_port}")
            lines.append(re.sub(r"\bone\b", number, own))
    return "\n".join(lines) + "\n"


class Proxy(NamedTuple):
    """How to run a proxy with a configuration in a folder."""

    around: str
    command: Callable[[str, Path], Sequence[str]]


PROXIES = {
    "nginx": Proxy(AROUND_NGINX, lambda folder, conf: ["-p", folder, "-c", str(conf)]),
    "haproxy": Proxy("{block}", lambda folder, conf: ["-q", "-f", str(conf)]),
    "caddy": Proxy(AROUND_CADDY, lambda folder, conf: ["run", "--adapter", "caddyfile", "--config", str(conf)]),
    "apache": Proxy(AROUND_APACHE, lambda folder, conf: ["-d", folder, "-f", str(conf), "-D", "FOREGROUND"]),
}


@asynccontextmanager
async def standing_before(name: str, text: str, port: int) -> AsyncIterator[None]:
    """Run a proxy with this configuration while the context lasts; begins when it listens."""
    path, proxy = program(name), PROXIES[name]
    with _folder() as folder:
        (folder / "come-back.asis").write_text(block("http"))
        modules = "\n".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so" for m in APACHE_MODULES)
        text = text.replace("/srv/eventstreams", str(folder))
        values = {"folder": folder, "block": text, "modules": modules, "address": f"127.0.0.1:{port}"}
        conf = folder / "proxy.conf"
        conf.write_text(proxy.around.format(**values))
        process = await asyncio.create_subprocess_exec(
            *(path, *proxy.command(str(folder), conf)),
            start_new_session=True,
            env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        )
        # It would wait for its streams.
        async with ended_with_its_own(process, PATIENCE):
            await _answers(process, port)
            yield


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that Apache's workers, of another user, may read."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def _answers(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                assert process.returncode is None, "the proxy has ended; it says why above"
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
