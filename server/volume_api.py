"""Docker's volume plugin API, version 1, which podman speaks, too: volumes over HTTP.

See https://docs.docker.com/engine/extend/plugins_volume/ and .../plugin_api/.

Rules of this file:

* Requests and replies are objects of JSON.  What can not be done is a status of 500 with ``Err``,
  which says why; what is no request is one of 400.
* An engine that has left before its mount was made will not unmount it: that is done at once.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from .volumes import VolumeError, Volumes

log = structlog.get_logger()

CONTENT_TYPE = "application/vnd.docker.plugins.v1.1+json"

Asked = dict[str, Any]
Answer = Callable[[Volumes, Asked], Awaitable[dict[str, Any]]]


async def _activate(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    return {"Implements": ["VolumeDriver"]}


async def _capabilities(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    return {"Capabilities": {"Scope": "local"}}


async def _create(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    options = {} if asked.get("Opts") is None else asked["Opts"]
    if not isinstance(options, dict) or not all(isinstance(it, str) for it in options.values()):
        raise ValueError("Opts: not an object of strings")
    await volumes.create(_text(asked, "Name"), options)
    return {}


async def _remove(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    await volumes.remove(_text(asked, "Name"))
    return {}


async def _mount(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    return {"Mountpoint": await volumes.mount(_text(asked, "Name"), _text(asked, "ID"))}


async def _unmount(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    await volumes.unmount(_text(asked, "Name"), _text(asked, "ID"))
    return {}


async def _path(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    return {"Mountpoint": volumes.path(_text(asked, "Name"))}


async def _get(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    name = _text(asked, "Name")
    return {"Volume": {**_entry(volumes, name), "Status": await volumes.status(name)}}


async def _list(volumes: Volumes, asked: Asked) -> dict[str, Any]:
    return {"Volumes": [_entry(volumes, name) for name in volumes.names()]}


def _entry(volumes: Volumes, name: str) -> dict[str, Any]:
    return {"Name": name, "Mountpoint": volumes.path(name)}


def _text(asked: Asked, key: str) -> str:
    """A field that must be there.

    Raises:
        ValueError: it is not.
    """
    value = asked.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: not given; it takes a string")
    return value


ANSWERS: dict[str, Answer] = {
    "Plugin.Activate": _activate,
    "VolumeDriver.Capabilities": _capabilities,
    "VolumeDriver.Create": _create,
    "VolumeDriver.Remove": _remove,
    "VolumeDriver.Mount": _mount,
    "VolumeDriver.Unmount": _unmount,
    "VolumeDriver.Path": _path,
    "VolumeDriver.Get": _get,
    "VolumeDriver.List": _list,
}


def application(volumes: Volumes) -> web.Application:
    """The API to these volumes."""
    made = web.Application()
    for name, answer in ANSWERS.items():
        made.router.add_post(f"/{name}", partial(_handle, volumes, answer))
    return made


async def _handle(volumes: Volumes, answer: Answer, request: web.Request) -> web.Response:
    status = 200
    try:
        asked = _parsed(await request.read())
        reply = {**await answer(volumes, asked), "Err": ""}
        if answer is _mount and (request.transport is None or request.transport.is_closing()):
            log.warning("an engine has left while it mounted", volume=asked["Name"])
            await volumes.unmount(asked["Name"], asked["ID"])
    except (ValueError, RecursionError) as error:  # the latter if it is nested too deep
        status, reply = 400, {"Err": f"{request.path}: {error}"}
    except VolumeError as error:
        status, reply = 500, {"Err": str(error)}
    except OSError as error:
        status, reply = 500, {"Err": f"{error.filename or request.path}: {error.strerror}"}
    except Exception as error:
        log.error("a request failed unexpectedly", path=request.path, exc_info=error)
        status, reply = 500, {"Err": "the plugin failed; its log tells why"}
    if status != 200:
        log.info("refused", path=request.path, why=reply["Err"])
    return web.Response(status=status, body=json.dumps(reply).encode(), content_type=CONTENT_TYPE)


def _parsed(body: bytes) -> Asked:
    """What a request asks for; engines send nothing where there is nothing to say.

    Raises:
        ValueError: it is no object of JSON.
    """
    asked = json.loads(body or b"{}")
    if not isinstance(asked, dict):
        raise ValueError("not an object")
    return asked
