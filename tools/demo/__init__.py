"""The demo and the drill: a real JupyterHub on the local Kubernetes of tools/cluster."""

from .client import ClientError, HubClient, LabCodeError
from .hub import HubError, HubProcess

__all__ = ["ClientError", "HubClient", "HubError", "HubProcess", "LabCodeError"]
