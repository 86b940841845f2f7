"""A small ComfyUI: its HTTP interface and websocket, one prompt at a time, and nodes that a test can measure.

    python comfy_server.py --listen 127.0.0.1 --port 8188      (as main.py of a folder)

Nodes: VHS_LoadVideo, LoadVideo and LoadImage read an upload; SaveVideo, SaveImages write files; Work sends what `news`
says and takes `steps` steps of `seconds`, Deaf takes `seconds` and cannot be interrupted; Fail raises, Crash ends the
process (once, when `once` names a file), DropSockets closes every websocket, Flood writes to stdout. Its folder holds
input, output, and in `requests.jsonl` what it was asked.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import queue
import re
import shutil
import socket
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HERE = Path.cwd()
#: node type -> inputs that it needs
NODES = {
    "VHS_LoadVideo": ["video"], "LoadVideo": ["file"], "LoadImage": ["image"],
    "SaveVideo": ["video"], "SaveImages": ["images", "count"],
    "Work": ["steps", "seconds"], "Deaf": ["seconds"],
    "Fail": ["message"], "Crash": [], "DropSockets": [], "Flood": ["megabytes"],
}  # fmt: skip
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Interrupted(Exception):
    """Somebody interrupted the prompt."""


class Comfy:
    """The queue, the history and the sockets."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pending: queue.Queue[list[Any]] = queue.Queue()
        self.waiting: dict[str, list[Any]] = {}
        self.running: list[Any] | None = None
        self.interrupted = threading.Event()
        self.history: dict[str, Any] = {}
        self.sockets: dict[str, socket.socket] = {}
        for folder in ("input", "output"):
            (HERE / folder).mkdir(exist_ok=True)

    def note(self, what: str, **facts: Any) -> None:
        with self.lock, (HERE / "requests.jsonl").open("a") as file:
            file.write(json.dumps({"what": what, "at": time.monotonic(), **facts}) + "\n")

    # ---- running prompts

    def work(self) -> None:
        while True:
            item = self.pending.get()
            with self.lock:
                if self.waiting.pop(item[1], None) is None:
                    continue
                self.running = item
                self.interrupted.clear()
            self.run(item)

    def run(self, item: list[Any]) -> None:
        _, prompt_id, prompt, extra, _ = item
        client, outputs, messages = extra["client_id"], {}, []
        node_id = ""

        def tell(kind: str, **data: Any) -> None:
            messages.append([kind, {"prompt_id": prompt_id, **data}])
            self.send(client, kind, {"prompt_id": prompt_id, **data})

        tell("execution_start")
        tell("execution_cached", nodes=[])
        try:
            for node_id, node in prompt.items():
                self.send(client, "executing", {"node": node_id, "prompt_id": prompt_id})
                if made := self.execute(client, prompt_id, node_id, node["class_type"], self.inputs(prompt, node)):
                    outputs[node_id] = made
            status = "success"
        except Interrupted:
            tell("execution_interrupted", node_id=node_id, node_type=prompt[node_id]["class_type"])
            status = "error"
        except ValueError as error:
            tell(
                "execution_error", node_id=node_id, node_type=prompt[node_id]["class_type"],
                exception_message=str(error), exception_type=type(error).__name__,
            )  # fmt: skip
            status = "error"
        else:
            tell("execution_success")
        with self.lock:
            self.running = None
            self.history[prompt_id] = {
                "prompt": item, "outputs": outputs,
                "status": {"status_str": status, "completed": status == "success", "messages": messages},
            }  # fmt: skip
        self.send(client, "executing", {"node": None, "prompt_id": prompt_id})

    def inputs(self, prompt: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
        """Links followed to the file that the linked node loads."""
        values = {}
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                linked = prompt[value[0]]["inputs"]
                value = next((linked[key] for key in ("video", "file", "image") if key in linked), None)
            values[name] = value
        return values

    def execute(self, client: str, prompt_id: str, node_id: str, kind: str, given: dict[str, Any]) -> Any:
        if kind == "Work":
            for name, data in json.loads(given.get("news", "[]")):
                self.send(client, name, {"prompt_id": prompt_id, "node": node_id, **data})
            for step in range(1, given["steps"] + 1):
                self.step(given["seconds"])
                data = {"value": step, "max": given["steps"], "prompt_id": prompt_id, "node": node_id}
                self.send(client, "progress", data)
        elif kind == "Deaf":
            threading.Event().wait(given["seconds"])
        elif kind == "Fail":
            raise ValueError(given["message"])
        elif kind == "Crash":
            self.crash(given.get("once"))
        elif kind == "DropSockets":
            for each in self.sockets.values():
                each.shutdown(socket.SHUT_RDWR)
        elif kind == "Flood":
            sys.stdout.write("x" * (given["megabytes"] << 20))
            sys.stdout.flush()
        return self.save(kind, given)

    def step(self, seconds: float) -> None:
        if self.interrupted.wait(seconds):
            raise Interrupted

    def crash(self, once: str | None) -> None:
        if once and Path(once).exists():
            return
        if once:
            Path(once).touch()
        print("Segmentation fault, as good as", flush=True)
        os._exit(7)

    def save(self, kind: str, given: dict[str, Any]) -> Any:
        if kind == "SaveVideo":
            name = f"made_{uuid.uuid4().hex[:6]}.mp4"
            (HERE / "output" / "clips").mkdir(exist_ok=True)
            shutil.copy(HERE / "input" / given["video"], HERE / "output" / "clips" / name)
            return {"images": [{"filename": name, "subfolder": "clips", "type": "output"}], "animated": [True]}
        if kind == "SaveImages":
            names = [f"picture_{number}.png" for number in range(given["count"])]
            for name in names:
                shutil.copy(HERE / "input" / given["images"], HERE / "output" / name)
            return {"images": [{"filename": name, "subfolder": "", "type": "output"} for name in names]}
        return None

    # ---- the websocket: text frames from the server, none of which is over 64 KB

    def send(self, client: str, kind: str, data: Any) -> None:
        listener = self.sockets.get(client)
        if listener is None:
            return
        text = json.dumps({"type": kind, "data": data}).encode()
        head = bytes([0x81, len(text)]) if len(text) < 126 else bytes([0x81, 126]) + len(text).to_bytes(2, "big")
        try:
            listener.sendall(head + text)
        except OSError:
            self.sockets.pop(client, None)

    # ---- what /prompt refuses

    def refusals(self, prompt: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for node_id, node in prompt.items():
            errors = [
                {"type": "required_input_missing", "message": "Required input is missing", "details": name,
                 "extra_info": {"input_name": name}}
                for name in NODES[node["class_type"]] if name not in node["inputs"]
            ]  # fmt: skip
            for name in ("video", "file", "image"):
                value = node["inputs"].get(name)
                if isinstance(value, str) and not (HERE / "input" / value).is_file():
                    errors.append(
                        {"type": "custom_validation_failed", "message": "Custom validation failed for node",
                         "details": f"{name} - Invalid file: {value}", "extra_info": {"input_name": name}}
                    )  # fmt: skip
            if errors:
                found[node_id] = {"errors": errors, "dependent_outputs": [], "class_type": node["class_type"]}
        return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    comfy: Comfy

    def log_message(self, *_: Any) -> None:
        """Said with `note`."""

    def answer(self, value: Any = None, status: int = 200) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match parts.path.strip("/").split("/"):
            case ["system_stats"]:
                self.answer({"system": {}, "devices": [{"type": "cpu", "torch_vram_total": 1 << 34}]})
            case ["ws"]:
                self.upgrade(query["clientId"])
            case ["queue"]:
                with self.comfy.lock:
                    running = [self.comfy.running] if self.comfy.running else []
                    self.answer({"queue_running": running, "queue_pending": list(self.comfy.waiting.values())})
            case ["history", prompt_id]:
                with self.comfy.lock:
                    known = {prompt_id: self.comfy.history[prompt_id]} if prompt_id in self.comfy.history else {}
                self.answer(known)
            case ["view"]:
                path = HERE / query["type"] / query.get("subfolder", "") / query["filename"]
                self.send_file(path)
            case _:
                self.answer({}, 404)

    def send_file(self, path: Path) -> None:
        if not path.is_file():
            self.answer(None, 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        self.wfile.write(path.read_bytes())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/upload/image":
            self.upload(body)
            return
        given = json.loads(body)
        match self.path:
            case "/prompt":
                self.prompt(given)
            case "/queue":
                with self.comfy.lock:
                    for each in given["delete"]:
                        self.comfy.waiting.pop(each, None)
                self.answer()
            case "/interrupt":
                self.comfy.note("interrupt", prompt_id=given.get("prompt_id"))
                with self.comfy.lock:
                    running = self.comfy.running
                    if running and given.get("prompt_id") in (None, running[1]):
                        self.comfy.interrupted.set()
                self.answer()
            case "/free":
                self.comfy.note("free", **given)
                self.answer()
            case _:
                self.answer({}, 404)

    def prompt(self, given: dict[str, Any]) -> None:
        prompt = given["prompt"]
        unknown = [node["class_type"] for node in prompt.values() if node["class_type"] not in NODES]
        if unknown:
            error = {
                "type": "invalid_prompt",
                "message": "Cannot execute because a node is missing.",
                "details": unknown[0],
            }
            self.answer({"error": error, "node_errors": {}}, 400)
            return
        if refused := self.comfy.refusals(prompt):
            error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
            self.answer({"error": error, "node_errors": refused}, 400)
            return
        prompt_id = str(uuid.uuid4())
        item = [0, prompt_id, prompt, {"client_id": given["client_id"]}, []]
        self.comfy.note("prompt", prompt_id=prompt_id, client_id=given["client_id"], prompt=prompt)
        with self.comfy.lock:
            self.comfy.waiting[prompt_id] = item
        self.comfy.pending.put(item)
        self.answer({"prompt_id": prompt_id, "number": 0, "node_errors": {}})

    def upload(self, body: bytes) -> None:
        boundary = b"--" + self.headers["Content-Type"].partition("boundary=")[2].encode()
        for part in body.split(boundary):
            head, _, content = part.partition(b"\r\n\r\n")
            if named := re.search(rb'filename="([^"]+)"', head):
                name = named[1].decode()
                (HERE / "input" / name).write_bytes(content.removesuffix(b"\r\n"))
                self.comfy.note("upload", name=name)
                self.answer({"name": name, "subfolder": "", "type": "input"})

    def upgrade(self, client: str) -> None:
        accept = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + MAGIC).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        self.end_headers()
        self.comfy.sockets[client] = self.connection
        self.comfy.send(client, "status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client})
        while self.connection.recv(4096):
            pass
        self.close_connection = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen")
    parser.add_argument("--port", type=int)
    parser.add_argument("--fail-while", type=Path, help="refuse to start while this file exists")
    given = parser.parse_args()
    if given.fail_while and given.fail_while.exists():
        sys.exit("no GPU was found")
    (HERE / "pid").write_text(str(os.getpid()))
    Handler.comfy = Comfy()
    threading.Thread(target=Handler.comfy.work, daemon=True).start()
    server = ThreadingHTTPServer((given.listen, given.port), Handler)
    print(f"To see the GUI go to: http://{given.listen}:{given.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
