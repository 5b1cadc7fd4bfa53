"""How to reach a cluster: the address of its job server, and the token that it demands."""

import json
import os
import secrets
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

#: seconds that a job server may take to answer
_PATIENCE = 10.0
#: what tells Ray of a token; none but ours may reach a node or a command
_RAY_SETTINGS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class Access:
    """Where a cluster's job server is, and the file that holds its token.

    :param address: ``http://host:port``
    """

    address: str
    token: Path

    def settings(self) -> dict[str, str]:
        """Variables that Ray's own commands read; the token itself stays in its file."""
        return {
            "RAY_API_SERVER_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
        }

    def environment(self) -> dict[str, str]:
        """The environment of a command that talks to this cluster."""
        return without_ray() | self.settings()

    def headers(self) -> dict[str, str]:
        """What a request to the job server carries."""
        return {"Authorization": f"Bearer {self.token.read_text().strip()}"}

    def get(self, path: str) -> Any:
        """What the job server answers, from JSON.

        :raises ClusterError: it does not answer, or refuses the token
        """
        try:
            return json.loads(self.read(path))
        except ValueError as error:
            raise self._silent(error) from error

    def read(self, path: str) -> bytes:
        """What the job server answers.

        :raises ClusterError: it does not answer, or refuses the token
        """
        try:
            request = urllib.request.Request(self.address + path, headers=self.headers())
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                content: bytes = answer.read()
                return content
        except (OSError, HTTPException) as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> ClusterError:
        return ClusterError(f"{self.address}: does not answer ({error}); see make cluster-status")


def without_ray() -> dict[str, str]:
    """This environment without what would lead Ray to another cluster."""
    return {name: value for name, value in os.environ.items() if name not in _RAY_SETTINGS}


def rays_token() -> Path:
    """Where Ray looks for a token by itself."""
    return Path.home() / ".ray" / "auth_token"


def chosen_token() -> Path:
    """The token that this user has chosen in ``RAY_AUTH_TOKEN_PATH``, or Ray's own."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or rays_token()).absolute()


def ensure_token(path: Path) -> Path:
    """Make a token if it is missing; only its owner may read it, also when it was Ray that made it (by the umask).

    :raises ClusterError: it is empty, or cannot be written
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        path.chmod(0o600)
        if not path.read_text().strip():
            raise ClusterError(f"{path}: holds no token; remove it, and a new one is made")
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}; name another file in RAY_AUTH_TOKEN_PATH") from error
    return path
