"""URLs as they may be shown and written down."""

import re

_HIDDEN = "***"
_SERVER_PASSWORD = re.compile(r"(?<=://)([^\s:/?#@]*):[^\s/]*@")
# A database's URL may hold a password with a slash as it is (sqlalchemy/engine/url.py, _parse_url).
_DATABASE_PASSWORD = re.compile(
    r"\b((?:postgres|mysql|mariadb|mssql|oracle|redis)[^\s:/]*://[^\s:/?#@]*):\S*@"
)
_SECRET_OPTION = re.compile(r"([?&][^\s=&]*(?:password|passwd|pwd|secret|token)=)[^\s&#]*", re.I)


def without_password(url: str) -> str:
    """Replace the passwords of all URLs in a text by ``***``; user, host and path stay.

    A text with a colon before, and an at sign in, the path of a database is hidden up to that sign too:
    rather too much than a password.
    """
    url = _DATABASE_PASSWORD.sub(rf"\1:{_HIDDEN}@", url)
    url = _SERVER_PASSWORD.sub(rf"\1:{_HIDDEN}@", url)
    return _SECRET_OPTION.sub(rf"\1{_HIDDEN}", url)
