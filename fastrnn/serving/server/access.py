"""Who may ask, and whose sequences are whose: bearer tokens of a file."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from fastrnn.errors import InvalidModelError
from fastrnn.serving.server.refusals import Refused

TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")  # RFC 6750's characters
PROTOCOL, BEARER = "fastrnn", "bearer."  # subprotocols of a WebSocket, which cannot have the header in a browser


class Access:
    """Tokens, of which only digests are kept; without any, everybody is one owner.

    A file has a line for each: a name and its token, or a token alone; # begins a comment. Callers of two lines with one name are the same owner's.
    """

    def __init__(self, path: str | None = None):
        self._known: list[tuple[bytes, str]] = []
        if path is None:
            return
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) > 2 or not TOKEN.fullmatch(words[-1]):
                raise InvalidModelError(f"{path}:{number}: a line is a name and a token, or a token, of 16 to 512 letters, digits and ._~+/=-")
            digest = _digest(words[-1].encode())
            self._known.append((digest, words[0] if len(words) == 2 else digest.hex()[:16]))
        if not self._known:
            raise InvalidModelError(f"{path}: no token in it; nobody could ask for anything")

    @property
    def needed(self) -> bool:
        return bool(self._known)

    def owner(self, authorization: str | None) -> str | None:
        """Whose request it is, by the header "Bearer TOKEN"; None where no tokens are needed. Raises Refused. All tokens are compared, each in
        constant time."""
        if not self._known:
            return None
        kind, _, token = (authorization or "").partition(" ")
        given, found = _digest(token.strip().encode("utf-8", "surrogateescape")), None
        for digest, name in self._known:
            if hmac.compare_digest(digest, given):
                found = name
        if found is None or kind.lower() != "bearer":
            raise Refused("unauthenticated", "this server wants a bearer token" if not authorization else "this token is not known")
        return found

    def owner_of_socket(self, authorization: str | None, protocols: list[str]) -> str | None:
        """The same for a WebSocket, which may bring its token as a subprotocol "bearer.TOKEN". Raises Refused."""
        bearer = next((p.removeprefix(BEARER) for p in protocols if p.startswith(BEARER)), None)
        return self.owner(authorization if bearer is None else f"Bearer {bearer}")


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
