"""A small OpenAI-compatible server that misbehaves on request, for all tests of what asks servers."""

import contextlib
import email
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = json.dumps({"caption": "Something is seen and heard.", "facts": [1, 2], "number": 1})


class Server:
    """Answers each question by the next of `script`, then by the last of it: a text, a status, or a callable, which
    finds what was asked in `handler.asked`: of several questions at a time, another may be the last of `asked`."""

    def __init__(self, *script):
        self.script, self.asked, self.tokens, self.paths = list(script), [], [], []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.asked = fields_of(body, self.headers["Content-Type"])
                with lock:
                    outer.asked.append(self.asked)
                    outer.paths.append(self.path)
                    outer.tokens.append(self.headers["Authorization"])
                    action = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                action(self) if callable(action) else outer.answer(self, action)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @staticmethod
    def answer(handler, action):
        if isinstance(action, int):
            return send(handler, action, b'{"error": "no"}')
        return send(handler, 200, completion(action))

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


def fields_of(body, content_type):
    """The JSON of a request; of a form its fields, each a list."""
    if not content_type.startswith("multipart/form-data"):
        return json.loads(body)
    form = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields = {}
    for part in form.get_payload():
        name = part.get_param("name", header="content-disposition")
        fields.setdefault(name, []).append(part.get_payload(decode=True))
    return fields


def completion(text, finish_reason="stop", **fields):
    message = {"role": "assistant", "content": text, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(whole).encode()


def send(handler, status, body, **headers):
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def slow(seconds):
    def act(handler):
        time.sleep(seconds)
        with contextlib.suppress(OSError):
            send(handler, 200, completion(GOOD))

    return act


def cut_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id"')
    handler.close_connection = True


def drip(handler):
    """Send a byte after the other, without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(2**20))
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)


def drip_headers(handler):
    """Send one header after the other, without end."""
    handler.send_response(200)
    with contextlib.suppress(OSError):
        while True:
            handler.send_header("X-More", "x")
            handler.flush_headers()
            time.sleep(0.05)


def endless(handler):
    """Send a reply that has no end as fast as it is taken."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" " * 2**16)


def redirect(url, status=307):
    return lambda handler: send(handler, status, b"", Location=url)
