"""Fetching published checkpoints from a server that this test runs, and finding checkpoints by name."""

import email.utils
import errno
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gigaseg.cli import main
from gigaseg.errors import CheckpointError
from gigaseg.sam import downloads
from gigaseg.sam.checkpoints import read_checkpoint
from gigaseg.sam.downloads import OFFICIAL, Official, checked_sha256, checkpoint_path, fetch, shipped

CONTENT = bytes(range(256)) * 20_000  # 5 MB


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `limits` breaks that many replies off after so many bytes, `ranges` ignores them.

    `refusals` come first: each a status and what Retry-After says.
    """

    limits: list[int]
    honours_ranges: bool
    status: int
    requests: list[str | None]
    refusals: list[tuple[int, str | None]]

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        if self.status != 200:
            self.send_error(self.status)
            return
        if self.refusals:
            status, wait = self.refusals.pop(0)
            self.send_response(status)
            if wait is not None:
                self.send_header("Retry-After", wait)
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.honours_ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        body = CONTENT[start:]
        if self.limits:
            body = body[: self.limits.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The handler class of a running server, whose file is the official checkpoint 'test'."""
    handler = type(
        "Own", (Handler,), {"limits": [], "honours_ranges": True, "status": 200, "requests": [], "refusals": []}
    )
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{running.server_port}/test.pth"
    official = Official("test.pth", url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "CC0")
    monkeypatch.setitem(OFFICIAL, "test", official)
    monkeypatch.setenv("GIGASEG_CHECKPOINTS", str(tmp_path / "cache"))
    yield handler
    running.shutdown()
    running.server_close()
    thread.join()


def part(tmp_path):
    return tmp_path / "cache" / ".test.pth.part"


def test_a_checkpoint_is_fetched_once_and_found_by_its_name(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint is 'test', not found at .*; run: gigaseg checkpoints test"):
        checkpoint_path("test")
    path = fetch("test")
    assert path == checkpoint_path("test") == tmp_path / "cache" / "test.pth"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["test.pth"]
    assert fetch("test") == path
    assert server.requests == [None]


def test_a_connection_that_breaks_is_taken_up_where_it_ended(server, tmp_path):
    server.limits = [1_000_000, 2_500_000]
    assert fetch("test").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-", "bytes=3500000-"]


def test_what_a_killed_process_left_is_gone_on_with(server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(CONTENT[:3_000_000])
    assert fetch("test").read_bytes() == CONTENT
    assert server.requests == ["bytes=3000000-"]


def test_a_complete_part_is_only_checked(server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(CONTENT)
    assert fetch("test").read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    server.honours_ranges, server.limits = False, [2_000_000]
    assert fetch("test").read_bytes() == CONTENT


def test_another_files_content_is_removed_and_told(server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(b"x" * 1000)
    found = hashlib.sha256(b"x" * 1000 + CONTENT[1000:]).hexdigest()
    with pytest.raises(CheckpointError, match=f"sha256 is {found}, expected {OFFICIAL['test'].sha256}") as caught:
        fetch("test")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []
    assert fetch("test").read_bytes() == CONTENT


def test_a_server_that_keeps_breaking_off_is_told_and_what_came_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_ATTEMPTS", 2)
    server.limits = [1000, 1000, 0]
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(the connection ended early\)"):
        fetch("test")
    assert part(tmp_path).read_bytes() == CONTENT[:2000]
    assert fetch("test").read_bytes() == CONTENT


def test_attempts_are_many_as_long_as_each_brings_something(server, monkeypatch):
    monkeypatch.setattr(downloads, "_ATTEMPTS", 2)
    server.limits = [400_000] * 10
    assert fetch("test").read_bytes() == CONTENT
    assert len(server.requests) == 11


def test_a_server_that_sends_the_same_beginning_again_and_again_is_given_up(server, monkeypatch):
    monkeypatch.setattr(downloads, "_ATTEMPTS", 3)
    server.honours_ranges, server.limits = False, [1000] * 20
    with pytest.raises(CheckpointError, match="the connection ended early"):
        fetch("test")
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_server_is_asked_again_after_the_time_that_it_names(server, status):
    server.refusals = [(status, "1")]
    begin = time.monotonic()
    assert fetch("test").read_bytes() == CONTENT
    assert time.monotonic() - begin >= 1
    assert server.requests == [None, None]


def test_a_server_that_wants_hours_is_not_waited_for(server):
    later = email.utils.formatdate(time.time() + 7200, usegmt=True)
    for wait, told in (("7200", "7200 s"), (later, r"7(199|200) s")):
        server.refusals = [(429, wait)]
        with pytest.raises(CheckpointError, match=f"HTTP 429 .*; the server asks to wait {told}"):
            fetch("test")
    server.refusals = [(429, "soon")]
    assert fetch("test").read_bytes() == CONTENT, "what cannot be read is no reason to stop"


@pytest.mark.parametrize("content", [b"junk", CONTENT[:-1] + b"x"], ids=["size", "content"])
def test_another_file_under_a_published_name_is_never_used_and_is_replaced(server, tmp_path, content):
    target = tmp_path / "cache" / "test.pth"
    target.parent.mkdir()
    target.write_bytes(content)
    told = rf"checkpoint is 'test', but {target} is another file: .*, expected .*; run: gigaseg checkpoints test$"
    with pytest.raises(CheckpointError, match=told) as caught:
        read_checkpoint("test")
    assert "\n" not in str(caught.value)
    assert main(["checkpoints", "test"]) == 0
    assert target.read_bytes() == CONTENT
    assert checked_sha256("test", target) == OFFICIAL["test"].sha256


def test_another_file_stays_while_the_right_one_cannot_be_fetched(server, tmp_path):
    target = tmp_path / "cache" / "test.pth"
    target.parent.mkdir()
    target.write_bytes(b"junk")
    server.status = 404
    with pytest.raises(CheckpointError, match="HTTP 404"):
        fetch("test")
    assert target.read_bytes() == b"junk"


def test_a_checkpoint_of_ones_own_may_hold_anything(tmp_path):
    (tmp_path / "own.pth").write_bytes(b"junk")
    assert checked_sha256(tmp_path / "own.pth", tmp_path / "own.pth") == hashlib.sha256(b"junk").hexdigest()


def test_a_file_that_the_server_lacks_is_told_at_once(server):
    server.status = 404
    with pytest.raises(CheckpointError, match=r"test\.pth: HTTP 404 Not Found"):
        fetch("test")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "_ATTEMPTS", 1)
    monkeypatch.setitem(OFFICIAL, "test", Official("t.pth", "http://127.0.0.1:9/t.pth", "0" * 64, 1, "CC0"))
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(.*refused.*\)") as caught:
        fetch("test", tmp_path)
    assert "\n" not in str(caught.value)


def test_two_that_fetch_at_once_end_with_one_good_file(server, tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch("test"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "cache" / "test.pth"] * 3
    assert found[0].read_bytes() == CONTENT
    assert server.requests == [None]


def test_a_cache_folder_on_a_file_system_without_locks_serves_as_well(server, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert fetch("test").read_bytes() == CONTENT


def test_the_command_prints_the_files_it_fetched(server, tmp_path, capsys):
    file = tmp_path / "own.safetensors"
    file.write_bytes(b"")
    assert main(["checkpoints", "test", str(file)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "cache" / "test.pth"), str(file)]


def test_the_command_without_names_lists_what_there_is(server, capsys, tmp_path):
    fetch("test")
    (tmp_path / "cache" / OFFICIAL["vit_l"].file).write_bytes(b"junk")
    assert main(["checkpoints"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "another file" in lines["vit_l"]
    assert str(tmp_path / "cache" / "test.pth") in lines["test"]
    assert "not fetched" in lines["vit_b"]
    assert "375 MB" in lines["vit_b"]
    assert {*shipped(), *OFFICIAL} == lines.keys()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vit_x", r"unknown checkpoint 'vit_x'; accepted: .*vit_b.* \(did you mean 'vit_.'\?\); or a file"),
        ("weights/mine.pth", "checkpoint is 'weights/mine.pth', no such file; accepted: a file, or one of .*vit_b"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told(name, told, capsys):
    with pytest.raises(CheckpointError, match=told):
        checkpoint_path(name)
    assert main(["checkpoints", name]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_published_sums_are_those_of_segment_anything():
    assert {name: (official.file, official.sha256[:8]) for name, official in OFFICIAL.items()} == {
        "vit_b": ("sam_vit_b_01ec64.pth", "ec2df627"),
        "vit_l": ("sam_vit_l_0b3195.pth", "3adcc431"),
        "vit_h": ("sam_vit_h_4b8939.pth", "a7bf3b02"),
    }
