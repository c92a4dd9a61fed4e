"""Object stores in memory: one that answers over HTTP as Google's does, to the real clients of a run on gs://, and
paths for tests that need thousands of requests.

Objects are written whole and replaced whole. None can be appended to; what a client calls a rename is made of a copy.
"""

import contextlib
import datetime
import http.server
import json
import pathlib
import sys
import threading
import time
import urllib.parse
from typing import NamedTuple

CONTENT = "application/octet-stream"


class Object(NamedTuple):
  content: bytes
  generation: int
  time: float


class Bucket:
  """objects: {name: Object}. watch: called with the bucket after each request that has changed it."""

  def __init__(self):
    self.objects, self.lock, self.uploads, self.generation = {}, threading.Lock(), {}, 0
    self.watch = lambda bucket: None

  def put(self, name: str, content: bytes, match: str | None = None) -> bool:
    """False where another writer was quicker than `match` allows."""
    with self.lock:
      if match is not None and int(match) != (self.objects[name].generation if name in self.objects else 0):
        return False
      self.generation += 1
      self.objects[name] = Object(content, self.generation, time.time())
      self.watch(self)
      return True

  def delete(self, name: str, match: str | None = None) -> int:
    with self.lock:
      if name not in self.objects:
        return 404
      if match is not None and int(match) != self.objects[name].generation:
        return 412
      del self.objects[name]
      self.watch(self)
      return 204

  def listed(self, prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
    """(names, what stands for deeper ones)."""
    names, deeper = [], {}
    with self.lock:
      for name in sorted(self.objects):
        if name.startswith(prefix):
          head, found, _ = name[len(prefix):].partition(delimiter) if delimiter else (name, "", "")
          if found:
            deeper[prefix + head + delimiter] = None
          else:
            names.append(name)
    return names, list(deeper)


class Killed(Exception):
  pass


class Objects(pathlib.PurePosixPath):
  """Paths with as much of pathlib as text files need. After `left` writes the process is killed; None: it is not."""

  stored: dict = {}
  left: int | None = None
  killed = Killed

  def _ask(self):
    if Objects.left == 0:
      raise Killed
    if Objects.left is not None:
      Objects.left -= 1

  def is_file(self):
    return str(self) in self.stored

  def is_dir(self):
    return any(name.startswith(f"{self}/") for name in self.stored)

  def iterdir(self):
    heads = {name.removeprefix(f"{self}/").partition("/")[0] for name in self.stored if name.startswith(f"{self}/")}
    return iter([self / head for head in sorted(heads)])

  def read_bytes(self):
    return self.stored[str(self)].encode()

  def read_text(self):
    return self.stored[str(self)]

  def write_text(self, text):
    self._ask()
    self.stored[str(self)] = text

  def unlink(self, missing_ok=False):
    self._ask()
    del self.stored[str(self)]

  def stat(self):
    return type("Stat", (), {"length": len(self.stored[str(self)])})()


class _Answer(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  wbufsize = 1 << 16   # headers and body in one packet
  disable_nagle_algorithm = True

  def log_message(self, *_):
    pass

  def _send(self, status: int, content: bytes = b"", kind: str = CONTENT, **headers) -> None:
    self.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
      self.send_header(name.replace("_", "-"), value)
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(content)
    self.wfile.flush()

  def _json(self, value, status: int = 200, **headers) -> None:
    self._send(status, json.dumps(value).encode(), "application/json", **headers)

  def _error(self, status: int) -> None:
    self._json({"error": {"code": status, "message": f"status {status}"}}, status)

  def _about(self, name: str) -> dict:
    content, generation, stamp = self.server.bucket.objects[name]
    written = datetime.datetime.fromtimestamp(stamp, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"kind": "storage#object", "name": name, "bucket": self.server.name, "size": str(len(content)),
            "generation": str(generation), "metageneration": "1", "updated": written, "timeCreated": written,
            "storageClass": "STANDARD"}

  def _asked(self) -> tuple[list[str], dict[str, str]]:
    """(parts of the address behind b/BUCKET, its query)."""
    address = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))
    parts = [urllib.parse.unquote(part) for part in address.path.split("/") if part]
    return parts[parts.index("b") + 2:] if "b" in parts else parts, query

  def do_GET(self):
    parts, query = self._asked()
    bucket = self.server.bucket
    if f"/b/{self.server.name}" not in self.path:
      return self._error(404)
    if not parts:
      return self._json({"kind": "storage#bucket", "name": self.server.name, "location": "US",
                         "locationType": "multi-region", "storageClass": "STANDARD"})
    if parts == ["o"]:
      names, deeper = bucket.listed(query.get("prefix", ""), query.get("delimiter", ""))
      names = [name for name in names if name >= query.get("startOffset", "")]
      return self._json({"kind": "storage#objects", "items": [self._about(name) for name in names],
                         "prefixes": deeper})
    if parts[0] != "o" or parts[1] not in bucket.objects:
      return self._error(404)
    content, generation, _ = bucket.objects[parts[1]]
    if query.get("alt") != "media" and "download" not in self.path:
      return self._json(self._about(parts[1]))
    if query.get("ifGenerationNotMatch") == str(generation):
      return self._send(304)
    headers, status = {"x_goog_generation": str(generation), "x_goog_stored_content_length": str(len(content))}, 200
    if wanted := self.headers.get("Range"):
      first, _, last = wanted.removeprefix("bytes=").partition("-")
      begin = int(first) if first else max(0, len(content) - int(last))
      end = min(int(last) + 1, len(content)) if first and last else len(content)
      if begin >= len(content) and content:
        return self._error(416)
      headers["Content_Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
      content, status = content[begin:end], 206
    return self._send(status, content, **headers)

  def do_POST(self):
    parts, query = self._asked()
    body = self._body()
    bucket = self.server.bucket
    if "rewriteTo" in parts or "moveTo" in parts:
      source, target = parts[1], parts[-1]
      if source not in bucket.objects:
        return self._error(404)
      content = bucket.objects[source].content
      bucket.put(target, content)
      if "moveTo" in parts:
        bucket.delete(source)
        return self._json(self._about(target))
      return self._json({"kind": "storage#rewriteResponse", "done": True, "objectSize": str(len(content)),
                         "totalBytesRewritten": str(len(content)), "resource": self._about(target)})
    kind, name = query.get("uploadType"), query.get("name", "")
    if kind == "multipart":
      told, body = _halves(self.headers["Content-Type"], body)
      name = name or json.loads(told)["name"]
    elif kind == "resumable":
      name = name or json.loads(body)["name"]
      key = str(len(bucket.uploads))
      bucket.uploads[key] = [name, b"", query.get("ifGenerationMatch")]
      place = f"http://{self.headers['Host']}/upload/storage/v1/b/{self.server.name}/o?upload_id={key}"
      return self._json({}, Location=place)
    elif "upload_id" in query:
      return self._resumed(query["upload_id"], body)
    return self._put(name, body, query.get("ifGenerationMatch"))

  def do_PUT(self):
    _, query = self._asked()
    return self._resumed(query["upload_id"], self._body())

  def do_DELETE(self):
    parts, query = self._asked()
    status = self.server.bucket.delete(parts[1], query.get("ifGenerationMatch"))
    return self._send(204) if status == 204 else self._error(status)

  def _resumed(self, key: str, body: bytes) -> None:
    upload = self.server.bucket.uploads[key]
    upload[1] += body
    if self.headers.get("Content-Range", "").endswith("/*"):
      return self._send(308, Range=f"bytes=0-{len(upload[1]) - 1}")
    return self._put(upload[0], upload[1], upload[2])

  def _put(self, name: str, content: bytes, match: str | None) -> None:
    if not self.server.bucket.put(name, content, match):
      return self._error(412)
    return self._json(self._about(name))

  def _body(self) -> bytes:
    if self.headers.get("Transfer-Encoding", "") == "chunked":
      content = b""
      while size := int(self.rfile.readline().strip() or b"0", 16):
        content += self.rfile.read(size)
        self.rfile.readline()
      self.rfile.readline()
      return content
    return self.rfile.read(int(self.headers.get("Content-Length") or 0))


def _halves(kind: str, body: bytes) -> tuple[bytes, bytes]:
  """(what is said of it, the content) of an upload in two parts."""
  edge = b"--" + kind.partition("boundary=")[2].strip("\"'").encode()
  told, content = body.split(edge)[1:3]
  strip = lambda part: part.replace(b"\r\n", b"\n", 4).partition(b"\n\n")[2]
  return strip(told).strip(), content.partition(b"\r\n\r\n" if b"\r\n\r\n" in content else b"\n\n")[2].removesuffix(
      b"\n").removesuffix(b"\r")


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 64

  def handle_error(self, request, client_address):
    """A client that has enough hangs up."""
    if not isinstance(sys.exc_info()[1], ConnectionError):
      super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(name: str = "bucket"):
  """(Bucket, its address) for as long as the block lasts."""
  server = _Server(("127.0.0.1", 0), _Answer)
  server.bucket, server.name = Bucket(), name
  thread = threading.Thread(target=server.serve_forever, name="bucket", daemon=True)
  thread.start()
  try:
    yield server.bucket, f"http://127.0.0.1:{server.server_address[1]}"
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
