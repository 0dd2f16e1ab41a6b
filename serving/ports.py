"""The addresses that a server listens on."""

import errno
import ipaddress
import socket

from core.errors import UserError

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches what listens on a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bound(host: str, port: int, option: str) -> socket.socket:
    """Returns a socket that is bound, and does not listen yet.

    Args:
      host: a name or address of this machine.
      port: 0 for any that is free.
      option: of the command line that names another port, for messages.

    Raises:
      UserError: the port is in use, or there is no such host here.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        # A port whose last connections are still closing counts as free.
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
    """Returns what the user is told of a port that cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return UserError(f"serve: port {port} is in use; name another with {option}")
    return UserError(
        f"serve: cannot listen on {host}, port {port}: {error.strerror}; name another with --host or "
        f"{option}"
    )


def free(wanted: int) -> int:
    """Returns a port of this machine's own address: the one that is wanted, or any where it is in use."""
    for port in (wanted, 0):
        try:
            # Beside a server on all interfaces some systems allow one on loopback, which then hides it.
            with bound("0.0.0.0", port, "") as everywhere:
                found = int(everywhere.getsockname()[1])
            with bound(LOOPBACK, found, ""):
                return found
        except UserError:
            continue
    raise UserError("serve: no port is free on this machine")
