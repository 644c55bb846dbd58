"""Who may ask: the names a server answers to, the pages that may use it, and the token.

A page of any site can make a browser send requests to 127.0.0.1, and by its own name's address, changed after it
was loaded (DNS rebinding), read the answers. So the Host header must be a name of this server, and a request that
a page of another site makes is refused.
"""

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LOOPBACK_NAMES = ("localhost",)
_OPEN = ("/", "/v2/health/live", "/v2/health/ready")
"""What needs no token: the page, which has nothing of the model in it, and what asks whether the server runs."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?", re.ASCII)


class Refused(Exception):  # noqa: N818 (it is an answer, not a fault)
    """A request that is not answered; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def is_loopback(host: str) -> bool:
    """Whether a host that is listened on can be reached from this machine alone."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """What a request must have."""

    hosts: frozenset[str] = frozenset()
    """Names of this server beside loopback's, in lower case."""
    any_address: bool = False
    """Whether it answers to every address: a page of another site has a name, and no address."""
    origins: frozenset[str] = frozenset()
    """Other sites whose pages may use it."""
    token: str | None = field(default=None, repr=False)

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Let a request pass.

        Args:
            headers: by names in lower case.

        Raises:
            Refused: for one that may not.
        """
        host = headers.get("host", "")
        if not self._knows(host):
            raise Refused(
                400,
                "this server does not go by the name in the Host header: use its address, or start it with "
                "--allow-host NAME",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and not _is_of(origin, host):
            raise Refused(
                403, "a page of another site may not use this server: start it with --allow-origin ORIGIN"
            )
        if self.token is None or path in _OPEN or method == "OPTIONS":
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise Refused(401, "give the token that the server was started with, as Authorization: Bearer TOKEN")

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found[1] or found[2]).lower()
        if name in self.hosts or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address


def _is_of(origin: str, host: str) -> bool:
    """Whether a page's origin is the host that was asked; what is no address is that of another site."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
