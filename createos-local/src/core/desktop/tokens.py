"""Who may look at a screen: asked by websockify for each new viewer."""

import hashlib
import hmac
import socket
import time


class Tokens:
    """The one token of a screen, kept as a digest with the second at which it ends."""

    def __init__(self, source):
        self.source = source

    def lookup(self, token):
        try:
            with open(self.source) as kept:
                digest, ends = kept.read().split()
        except (OSError, ValueError):
            return None
        # A copy of this sandbox has another name, and the token is not good there.
        given = hashlib.sha256(f"{socket.gethostname()}:{token}".encode()).hexdigest()
        if not hmac.compare_digest(given, digest) or time.time() >= int(ends):
            return None
        return ["127.0.0.1", str(5900 + int(self.source.rsplit("-", 1)[1]))]
