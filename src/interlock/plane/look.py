"""One quick look at whether something on this machine answers. No client library: it is done ten times a second."""

import errno
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

# It is we who have no descriptor or memory left to look with: that says nothing of the one who is looked at.
OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


class CannotLook(Exception):
    """No look was possible, for lack of something of our own."""


def answer_of(url: str, *, timeout_seconds: float) -> int | None:
    """
    The status of one GET; None without an answer.

    Raises:
        CannotLook: this process has no descriptor, port or memory left.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno in OWN_TROUBLE:
            raise CannotLook(str(error)) from error
        return None
    finally:
        connection.close()
