"""The addresses of a name, where all of them may be connected to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from backtal.errors import InvalidArgument, PermissionDenied

# Addresses of IPv4 in the dress of IPv6, for a translator on the way.
_TRANSLATED = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


def public_addresses(
    host: str, port: int, private_networks: Sequence[IPv4Network | IPv6Network]
) -> list[str]:
    """The addresses of `host`, to connect to one of them and not to look the name up again.

    Raises PermissionDenied where one of them is neither public nor in `private_networks`: it is
    not said which, a caller could map a network so. InvalidArgument where there are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidArgument(f"the host {host!r} has no address") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        address = ip_address(text.partition("%")[0])
        if not any(address in network for network in private_networks) and not is_public(address):
            raise PermissionDenied(f"the host {host!r} has an address that is not public")
    return addresses


def is_public(address: Address) -> bool:
    """Whether an address is out in the internet; of an IPv4 one in the dress of IPv6, that one."""
    if isinstance(address, IPv6Address) and (carried := _carried(address)) is not None:
        return is_public(carried)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour
