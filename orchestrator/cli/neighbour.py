"""Asking an orchestrator over HTTP for the states that it leads, with the token and by the certificate that the configuration names."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from orchestrator.cli.output import remark
from orchestrator.said import say
from orchestrator.secretfiles import token_of
from statemachines.configuration import OrchestratorSettings

HTTP_LIMIT_S = 3.0
_CAREFUL = 20_000_000
"""Bytes of a status that are read at most."""


def own_url(settings: OrchestratorSettings) -> str:
    """Where the orchestrator of this configuration answers."""
    return settings.url or f"{'https' if settings.cert_file is not None else 'http'}://{settings.listen}"


def ask(url: str, settings: OrchestratorSettings) -> dict[str, dict[str, Any]]:
    """The states that an orchestrator answers with; empty when it does not, or not to us, which is said. No proxy is asked.

    Raises:
        SecretError: the token is not where the configuration says.
    """
    token = token_of(settings)
    try:
        connection = _connection(urlsplit(url), settings)
    except (ValueError, HTTPException, OSError):
        return {}
    try:
        connection.request("GET", "/status", headers={"Authorization": f"Bearer {token}"} if token is not None else {})
        answer = connection.getresponse()
        if answer.status == 401:
            remark(say("the orchestrator at {url} wants another token: set token_file or token_env in [orchestrator]", url=url))
        clusters = json.loads(answer.read(_CAREFUL))["clusters"] if answer.status == 200 else {}
    except ssl.SSLError as error:
        remark(say("the orchestrator at {url} is not trusted ({why}): set ca_file in [orchestrator]", url=url, why=error.reason or error))
        return {}
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return {}
    finally:
        connection.close()
    return {name: state for name, state in clusters.items() if isinstance(state, dict)} if isinstance(clusters, Mapping) else {}


def _connection(place: SplitResult, settings: OrchestratorSettings) -> HTTPConnection:
    if place.scheme != "https":
        return HTTPConnection(place.hostname or "", place.port or 80, timeout=HTTP_LIMIT_S)
    context = ssl.create_default_context(cafile=settings.ca_file or settings.cert_file)
    return HTTPSConnection(place.hostname or "", place.port or 443, timeout=HTTP_LIMIT_S, context=context)
