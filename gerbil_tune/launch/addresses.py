"""Addresses of dashboards."""

import ipaddress
import urllib.parse

from gerbil_tune.errors import ConfigError
from gerbil_tune.urls import without_password


def dashboard_url(address: str) -> str:
    """Return the URL of a dashboard without a slash at its end; ``head:8265`` gets its ``http://``.

    Raises:
        ConfigError: If it is no HTTP address, or holds a password.
    """
    url = address if "://" in address else f"http://{address}"
    parts = urllib.parse.urlsplit(url)
    try:
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment or any(map(str.isspace, url)):
        raise ConfigError(
            f"--address is {without_password(address)!r}; valid: the URL of a Ray cluster's dashboard, such "
            "as http://head:8265; the token comes from RAY_AUTH_TOKEN_PATH, not from the URL"
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine itself."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
