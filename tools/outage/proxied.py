"""A hub whose proxy is a program of its own, as in the Zero to JupyterHub chart.

It stays when the hub ends, and so do its routes: labs that run can be reached without a hub.
"""

from __future__ import annotations

import subprocess

from tools.demo.hub import PROXY_PID, HubProcess

from .busy import seconds_of


class ProxiedHub(HubProcess):
    """:meth:`start_proxy` comes first; :meth:`close` ends both."""

    def start_proxy(self) -> None:
        """Start it with no route but the one to the hub, which need not be there yet."""
        hub = f"http://{self.hub_ip}:{self._hub_port}"
        argv = ["configurable-http-proxy", f"--port={self.port}", f"--api-port={self._api_port}"]
        argv += ["--ip=127.0.0.1", "--api-ip=127.0.0.1", "--log-level=warn"]
        argv += [f"--default-target={hub}", f"--error-target={hub}/hub/error"]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Where JupyterHub notes one that it starts itself; close() ends it by that.
        (self.directory / PROXY_PID).write_text(str(process.pid))
        # Else the hub's start takes it for a stale one, forgets it, and nobody ever ends it.
        self._record()
        self.arguments.append("--ConfigurableHTTPProxy.should_start=False")

    def cpu_seconds(self) -> float:
        """Processor time of the hub since its start. The proxy's share is small, and left out."""
        return seconds_of(self._process.pid) if self._process else 0.0
