"""The addresses that a server listens on."""

import errno
import ipaddress
import socket

from core.errors import UserError

LOOPBACK = "127.0.0.1"
IN_USE = "is in use"


def is_loopback(host: str) -> bool:
    """Returns whether a server on this host is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bound(host: str, port: int, option: str) -> socket.socket:
    """Returns a socket that is bound but does not listen yet.

    Args:
      host: a name or address of this machine.
      port: 0 for any free one.
      option: the command-line option for the port, for messages.

    Raises:
      UserError: the port is in use, or this machine has no such host.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        # A port whose last connections are still closing is free.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise refused(host, port, option, error) from error
    return made


def refused(host: str, port: int, option: str, error: OSError) -> UserError:
    """Returns the error for a port that the server cannot listen on."""
    if error.errno == errno.EADDRINUSE:
        return UserError(f"serve: port {port} {IN_USE}; choose another with {option}")
    return UserError(
        f"serve: cannot listen on {host}, port {port}: {error.strerror}; choose another with --host or "
        f"{option}"
    )


def free(wanted: int) -> int:
    """Returns a free port on loopback: `wanted`, or any other if that is in use."""
    for port in (wanted, 0):
        try:
            # Some systems let a server on loopback hide another one on all interfaces.
            with bound("0.0.0.0", port, "") as everywhere:
                number = int(everywhere.getsockname()[1])
            with bound(LOOPBACK, number, ""):
                return number
        except UserError:
            continue
    raise UserError("serve: no port is free on this machine")
