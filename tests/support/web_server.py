"""A web server for sandboxes that uses only the standard library: bytes, echoes, WebSockets, invalid responses."""

import base64
import hashlib
import http.server
import socketserver
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.websocket()
        elif self.path.startswith("/zeros/"):
            size = int(self.path.rpartition("/")[2])
            self.begin(("Content-Length", str(size)))
            while size > 0:
                part = min(size, 1 << 16)
                self.wfile.write(bytes(part))
                size -= part
        elif self.path == "/slow":
            self.begin(("Transfer-Encoding", "chunked"))
            self.wfile.write(b"5\r\nfirst\r\n")
            self.wfile.flush()
            self.rfile.read(1)
        elif self.path == "/garbage":
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            self.close_connection = True
        elif self.path == "/endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            try:
                while True:
                    self.wfile.write(b"X-Endless: " + b"x" * 1000 + b"\r\n")
            except OSError:
                self.close_connection = True
        elif self.path == "/short":
            self.begin(("Content-Length", "1000"))
            self.wfile.write(b"short")
            self.close_connection = True
        else:
            lines = [f"{self.command} {self.path}", *(f"{name}: {value}" for name, value in self.headers.items())]
            self.respond("\n".join(lines).encode())

    def do_POST(self):
        digest = hashlib.sha256()
        left = int(self.headers.get("Content-Length", 0))
        while left:
            part = self.rfile.read(min(left, 1 << 16))
            digest.update(part)
            left -= len(part)
        self.respond(digest.hexdigest().encode())

    def begin(self, *headers):
        self.send_response(200)
        self.send_header("Set-Cookie", "a=b")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def respond(self, body):
        self.begin(("Content-Length", str(len(body))))
        self.wfile.write(body)

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        if self.headers.get("Sec-WebSocket-Protocol"):
            self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"].split(",")[0])
        self.end_headers()
        self.close_connection = True
        while True:
            first, second = self.rfile.read(2)
            size = second & 127
            if size == 126:
                size = int.from_bytes(self.rfile.read(2), "big")
            elif size == 127:
                size = int.from_bytes(self.rfile.read(8), "big")
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))
            header = bytes([first, size]) if size < 126 else bytes([first, 126]) + size.to_bytes(2, "big")
            self.wfile.write(header + data)
            if first & 15 == 8:
                return

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        print("listening", flush=True)
        server.serve_forever()
