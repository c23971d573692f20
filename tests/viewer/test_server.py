import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from gigaseg.viewer.packs import CHANGED
from viewer.conftest import serving


def ask(address, path, host=None):
    """Status and body of a path sent as it stands: no client tidies it up."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or urlsplit(address).netloc)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def content(address, path):
    """JSON at a path once it is more than a promise."""
    for _ in range(200):
        status, body = ask(address, path)
        if status != 202:
            return status, json.loads(body)
        time.sleep(0.05)
    raise TimeoutError(path)


def test_slides_are_listed_with_their_state(address):
    status, found = content(address, "/data/slides.json")
    assert status == 200
    assert [(slide["slide"], slide["state"]) for slide in found["slides"]] == [
        ("a", "ok"),
        ("b", "ok"),
        ("broken", "failed"),
    ]
    assert "broken.tif" in found["slides"][2]["reason"]


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/data/../../../../etc/passwd", "/data/a/../../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd", "/server.py", "/%2e%2e/server.py",
        "/data/..%2f..%2f/about.json", "/data/%2e%2e/about.json", "/data/./about.json", "/data/a/pack/../slide.json",
        "/data/a/pack/..%2Fslide.json", "/data/a/pack//etc/passwd", "/data/a/slide.json", "/data/a/instances.parquet",
        "/data/a/picture/..%2f/0_0.jpg", "/data/a%00/about.json", "/data/nobody/about.json",
        "/data/nobody/overview.png", "/data/a/picture/99/0_0.jpg", "/data/a/picture/3/7_7.jpg",
        "/data/a/pack/rows/999.gz",
    ],
)  # fmt: skip
def test_nothing_but_what_is_shown_is_served(address, path):
    content(address, "/data/a/pack/meta.json")
    status, body = ask(address, path)
    assert status in (400, 404)
    assert b"root:" not in body
    assert b"gigaseg/slide" not in body


def test_a_link_to_elsewhere_in_the_results_folder_is_no_slide(cohort, tmp_path):
    shutil.copytree(cohort / "b", tmp_path / "results" / "b")
    (tmp_path / "results" / "b" / "overview.png").symlink_to("/etc/hostname")
    (tmp_path / "results" / "..hidden").mkdir()
    shutil.copy(cohort / "b" / "slide.json", tmp_path / "results" / "..hidden")
    with serving(tmp_path / "results") as address:
        _, found = content(address, "/data/slides.json")
        assert [slide["slide"] for slide in found["slides"]] == ["b"]
        assert ask(address, "/data/b/overview.png")[0] == 404


def test_other_names_for_this_machine_are_refused_on_loopback(cohort, address):
    assert ask(address, "/data/slides.json")[0] == 200
    assert ask(address, "/data/slides.json", "localhost:1")[0] == 200
    assert ask(address, "/data/slides.json", "evil.example")[0] == 404
    assert ask(address, "/", "evil.example")[0] == 404
    with serving(cohort, any_host=True) as open_to_all:
        assert ask(open_to_all, "/data/slides.json", "slides.example")[0] == 200


def test_a_failed_slide_says_why(address):
    for path in ("/data/broken/about.json", "/data/broken/pack/meta.json"):
        status, found = content(address, path)
        assert status == 409
        assert "broken.tif" in found["reason"]


def test_the_page_asks_nothing_of_the_network(address):
    for name in ("", "main.js", "viewer.css", "index.html"):
        status, body = ask(address, f"/{name}")
        assert status == 200
        assert not re.search(rb"(src|href|import|url\()\W{0,3}https?:", body)


def test_results_that_change_are_packed_anew(cohort, tmp_path):
    shutil.copytree(cohort / "b", tmp_path / "results" / "b", ignore=shutil.ignore_patterns("view.zip"))
    measured = tmp_path / "results" / "b" / "measurements.parquet"
    with serving(tmp_path / "results" / "b") as address:
        _, before = content(address, "/data/b/pack/meta.json")
        made = (tmp_path / "results" / "b" / "view.zip").stat().st_mtime_ns
        content(address, "/data/b/pack/meta.json")
        assert (tmp_path / "results" / "b" / "view.zip").stat().st_mtime_ns == made
        measured.touch()
        _, after = content(address, "/data/b/pack/meta.json")
        old = before.pop("version")
        assert ask(address, f"/data/b/pack/centres.gz?v={after['version']}")[0] == 200
        status, body = ask(address, f"/data/b/pack/centres.gz?v={old}")
        assert (status, json.loads(body)["reason"]) == (409, CHANGED)
        assert old != after.pop("version")
        assert before.pop("state") != after.pop("state")
        assert before == after
        measured.write_bytes(b"PAR1 no more")
        status, found = content(address, "/data/b/pack/meta.json")
        assert (status, "measurements.parquet" in found["reason"]) == (409, True)


def start(*words, **options):
    command = [sys.executable, "-m", "gigaseg", "view", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=interruptible, **pipes, **options)


def interruptible():
    """As in a terminal, also where the tests run in the background of a shell, whose children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_command_serves_on_loopback_alone_until_interrupted(cohort):
    process = start(cohort, "--port", "0")
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert line.startswith("3 slides of ")
        with urlopen(address.group(0), timeout=20) as answer:
            assert b"<title>gigaseg</title>" in answer.read()
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
        for other in [*others, "127.0.0.2"]:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, int(address.group(1))), 5)
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "Traceback" not in process.stderr.read()


def test_a_server_that_is_told_to_end_leaves_no_temporary_folder(cohort, tmp_path):
    process = start(cohort, "--port", "0", env={**os.environ, "TMPDIR": str(tmp_path)})
    process.stdout.readline()
    process.terminate()
    assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"), [((".",), "no results of a slide"), (("--host", "203.0.113.1", "RESULTS"), "203.0.113.1")]
)
def test_a_mistake_is_told_in_one_line(cohort, tmp_path, words, told):
    process = start(*(cohort if word == "RESULTS" else word for word in words), cwd=tmp_path)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert told in error
    assert len(error.splitlines()) == 1
