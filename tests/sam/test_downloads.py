"""Fetching published checkpoints from a server that this test runs, and finding checkpoints by name."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gigaseg.cli import main
from gigaseg.errors import CheckpointError
from gigaseg.sam import downloads
from gigaseg.sam.downloads import OFFICIAL, Official, checkpoint_path, fetch, shipped

CONTENT = bytes(range(256)) * 20_000  # 5 MB


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `limits` breaks that many replies off after so many bytes, `ranges` ignores them."""

    limits: list[int]
    honours_ranges: bool
    status: int
    requests: list[str | None]

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        if self.status != 200:
            self.send_error(self.status)
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
    handler = type("Own", (Handler,), {"limits": [], "honours_ranges": True, "status": 200, "requests": []})
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
    server.limits = [1000, 1000]
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(the connection ended early\)"):
        fetch("test")
    assert part(tmp_path).read_bytes() == CONTENT[:2000]
    assert fetch("test").read_bytes() == CONTENT


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


def test_the_command_prints_the_files_it_fetched(server, tmp_path, capsys):
    file = tmp_path / "own.safetensors"
    file.write_bytes(b"")
    assert main(["checkpoints", "test", str(file)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "cache" / "test.pth"), str(file)]


def test_the_command_without_names_lists_what_there_is(server, capsys, tmp_path):
    fetch("test")
    assert main(["checkpoints"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
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
