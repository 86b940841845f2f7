"""Files that are uploaded for a task that is about to be queued."""

from __future__ import annotations

from dataclasses import asdict

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from source.errors import DiskFull, InvalidInput, StoreError
from source.page.context import may_write, page_of, session_of
from source.page.media import given
from source.supabase_uploads import uploads_for
from source.uploads import KINDS, LocalUploads, Reception, TooLarge, receiving

_BLOCK_BYTES = 1 << 20


async def receive(request: Request) -> Response:
    """POST the bytes of a file; `?name=photo.jpg&kind=image&project=`, the session's mark in X-CSRF-Token. Answers what
    a parameter may say, or `error`."""
    session = session_of(request)
    if session is None or not may_write(request) or not session.vouches_for(request.headers.get("x-csrf-token", "")):
        raise HTTPException(403, "log in first, or load the page again")
    asked = request.query_params
    name, kind, project = asked.get("name", ""), asked.get("kind", ""), asked.get("project", "").strip() or None
    if kind not in KINDS:
        return _refused(400, f"kind must be one of {', '.join(KINDS)}")
    page = page_of(request)
    uploads = uploads_for(page.settings, page.store, project)
    try:
        with receiving(page.settings, uploads.folder) as reception:
            reception.expect(_declared(request))
            await _read(request, reception)
            upload = await run_in_threadpool(reception.kept, name, kind, uploads)
    except TooLarge as error:
        return _refused(413, str(error))
    except InvalidInput as error:
        return _refused(422, str(error))
    except DiskFull as error:
        return _refused(507, str(error))
    except (StoreError, OSError) as error:
        return _refused(503, f"the file could not be kept: {error}")
    return JSONResponse(asdict(upload), 201)


async def _read(request: Request, reception: Reception) -> None:
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _BLOCK_BYTES:
            await run_in_threadpool(reception.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(reception.write, bytes(waiting))


def _declared(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


def _refused(code: int, message: str) -> Response:
    return JSONResponse({"error": message}, code)


def show(request: Request) -> Response:
    """An uploaded file, for the picture beside its field."""
    path = LocalUploads(page_of(request).settings).find(request.path_params["name"])
    if path is None:
        raise HTTPException(404)
    return given(path)


routes = [
    Route("/uploads", receive, methods=["POST"]),
    Route("/uploads/{name}", show),
]
