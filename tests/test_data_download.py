"""Downloads against a server of our own on this machine: mirrors, hashes, interruptions."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from tinysqueeze.data import cifar10, download
from tinysqueeze.data.download import Remote, cache_folder, fetch
from tinysqueeze.errors import DataError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
NAME = "file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    """What the path says: /good, /whole (knows no ranges), /dies (after 300 kB), /wrong, /endless;
    404 for the rest. Notes each request in `server.seen` as (path, first byte asked for)."""

    def do_GET(self):
        kind = self.path.strip("/")
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.seen.append((kind, start))
        if kind not in ("good", "whole", "dies", "wrong", "endless"):
            self.send_error(404)
            return
        content = {"wrong": bytes(len(CONTENT)), "endless": CONTENT + CONTENT}.get(kind, CONTENT)
        if kind == "whole":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: 300_000 if kind == "dies" else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server):
    def build(*kinds):
        place = f"http://127.0.0.1:{server.server_port}"
        digest = hashlib.sha256(CONTENT).hexdigest()
        return Remote(NAME, len(CONTENT), digest, tuple(f"{place}/{kind}" for kind in kinds))

    return build


def arrives(remote, folder):
    path = fetch(remote, folder, progress=False)
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == [NAME]  # nothing is left beside it


def test_a_good_mirror_once_and_then_from_the_cache(remote, server, tmp_path):
    for _ in range(2):
        arrives(remote("good"), tmp_path)
    assert server.seen == [("good", 0)]


def test_404_and_a_wrong_hash_lead_to_the_next_mirror(remote, server, tmp_path):
    arrives(remote("gone", "wrong", "endless", "good"), tmp_path)
    assert [kind for kind, _ in server.seen] == ["gone", "wrong", "endless", "good"]


def test_a_dying_connection_is_resumed_where_it_broke_off(remote, server, tmp_path):
    arrives(remote("dies"), tmp_path)
    starts = [start for _, start in server.seen]
    assert starts == [0, 262_144, 524_288, 786_432]  # whole chunks are kept


def test_what_an_interrupted_run_fetched_is_kept(remote, server, tmp_path, monkeypatch):
    def interrupted(self, size):
        yield CONTENT[:123_456]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.requests.Response, "iter_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(remote("good"), tmp_path, progress=False)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{NAME}.part"]
    arrives(remote("good"), tmp_path)
    assert server.seen[-1] == ("good", 123_456)


def test_a_server_without_ranges_sends_the_whole_again(remote, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:5000])
    arrives(remote("whole"), tmp_path)


def test_a_complete_part_needs_no_server(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    arrives(remote("good"), tmp_path)
    assert server.seen == []


@pytest.mark.parametrize("junk", [bytes(5000), bytes(len(CONTENT)), bytes(2 * len(CONTENT))])
def test_a_spoilt_part_is_thrown_away(remote, tmp_path, junk):
    (tmp_path / f"{NAME}.part").write_bytes(junk)
    arrives(remote("good"), tmp_path)


def test_a_damaged_file_in_the_cache_is_fetched_anew(remote, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    arrives(remote("good"), tmp_path)


def test_when_all_fail_one_line_says_what_was_tried_and_how_else(remote, tmp_path):
    broken = remote("gone", "wrong")
    with pytest.raises(DataError) as failure:
        fetch(broken, tmp_path, progress=False)
    message = str(failure.value)
    assert "\n" not in message
    for part in (*broken.mirrors, "HTTP 404", "wrong hash", "Without a network", NAME, tmp_path):
        assert str(part) in message


def test_no_connection_at_all(tmp_path):
    nobody = Remote(NAME, 10, "0" * 64, ("http://127.0.0.1:9/file.bin",))
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/file\.bin \(ConnectionError"):
        fetch(nobody, tmp_path, progress=False)


def test_the_progress_bar_counts_what_was_there_already(remote, tmp_path, capsys):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:500_000])
    fetch(remote("good"), tmp_path)
    assert "100%" in capsys.readouterr().err


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYSQUEEZE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TINYSQUEEZE_CACHE")
    assert cache_folder().name == "tinysqueeze"


def test_cifar10_names_the_official_archive():
    archive = cifar10.ARCHIVE
    assert (archive.name, archive.size) == ("cifar-10-python.tar.gz", 170_498_071)
    assert len(archive.mirrors) >= 3
    assert all(url.startswith("https://") for url in archive.mirrors)
