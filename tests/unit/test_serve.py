"""The pages of `lookalike serve`: what they answer, and to whom they do not."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from conftest import made_image
from lookalike.cli import indexed, server
from lookalike.cli.main import app
from lookalike.cli.server import TOKEN, Served, application
from lookalike.embed.catalogue import Catalogue
from lookalike.job import packages
from unit.test_cli import REFERENCES, run_experiment

OWN = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    run_experiment(folder)
    report = folder / "results/reports/mine"
    (report / "cases").mkdir(parents=True)
    (report / "index.html").write_text("<!doctype html><title>the report</title>")
    (report / "cases/part-0.js").write_text("part")
    return folder


@pytest.fixture
def ran(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of a finished run with a report, and a secret beside it."""
    folder = Path(shutil.copytree(finished, tmp_path / "ran"))
    made_image(99).save(folder / "secret.png")
    monkeypatch.chdir(folder)
    return folder


def served(folder: Path) -> Served:
    catalogue = Catalogue.open([folder / "mine.yaml"], folder / "results")
    stored = indexed.of_experiment(catalogue, "mine", "tiny", "flat")
    return Served(indexed.Loaded(catalogue, stored, 1), "mine", folder / "results/reports/mine/index.html", "me", 5)


@pytest.fixture
def client(ran: Path) -> Iterator[TestClient]:
    with TestClient(application(served(ran)), base_url=OWN, raise_server_exceptions=False) as client:
        yield client


def png(number: int, size: tuple[int, int] = (60, 48)) -> bytes:
    buffer = io.BytesIO()
    made_image(number, size).save(buffer, "PNG")
    return buffer.getvalue()


def search(client: TestClient, data: bytes, status: int = 200, **headers: str) -> Any:
    token = client.get("/facts").json()["token"]
    answer = client.post("/search", content=data, headers={TOKEN: token, **headers})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_an_image_finds_its_neighbors_and_their_thumbnails(client: TestClient, ran: Path) -> None:
    found = search(client, png(5))["neighbors"]
    assert [hit["rank"] for hit in found] == [1, 2, 3, 4, 5]
    assert (found[0]["id"], found[0]["score"]) == ("p5.png", pytest.approx(1, abs=1e-6))
    shown = client.get(f"/{found[0]['image']}")
    assert shown.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.size == (60, 48)
    arguments = ["find", "photos/p5.png", "--experiment", "mine", "--model", "tiny", "--json", "--no-sheet"]
    same = json.loads(CliRunner().invoke(app, [*arguments, "--configfile", "mine.yaml"]).stdout)["neighbors"]
    assert [hit["id"] for hit in found] == [hit["image_id"] for hit in same]


def test_the_page_the_report_and_its_parts_are_served(client: TestClient) -> None:
    assert "Drop an image here" in client.get("/").text
    assert client.get("/serve.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/serve.css").status_code == 200
    assert client.get("/facts").json()["images"] == REFERENCES
    assert "the report" in client.get("/report/").text
    assert client.get("/report/cases/part-0.js").text == "part"


def test_every_answer_forbids_guessing_framing_and_reading_by_other_pages(client: TestClient) -> None:
    for path in ("/", "/facts", "/image/0", "/report/", "/gone"):
        headers = client.get(path, headers={"origin": OWN}).headers
        assert {name: headers[name] for name in server.HEADERS} == server.HEADERS
        assert not [name for name in headers if name.startswith("access-control")]
    assert "script-src 'self';" in client.get("/").headers["content-security-policy"]
    assert "unsafe" not in client.get("/").headers["content-security-policy"]
    assert "connect-src" not in client.get("/report/").headers["content-security-policy"], "it sends nothing"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_a_name_that_another_page_can_point_here_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/facts", "/image/0"):
        assert client.get(path, headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "10.0.0.5:80", "me:8765"]
)
def test_addresses_and_the_host_that_was_given_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/facts", headers={"host": host}).status_code == 200


def test_other_pages_can_neither_search_nor_show_images_here(client: TestClient) -> None:
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},  # another program on this machine
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"},
    ):
        for path in ("/facts", "/image/0"):
            assert client.get(path, headers=headers).status_code == 403, headers
        search_with = {**headers, TOKEN: client.get("/facts").json()["token"]}
        assert client.post("/search", content=png(1), headers=search_with).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200, "a link to the page may be followed"


@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_a_search_needs_the_token_of_the_page(client: TestClient, token: str) -> None:
    answer = client.post("/search", content=png(1), headers={TOKEN.encode(): token.encode()})
    assert answer.status_code == 403
    assert client.get("/search").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/image/999",
            "/image/-1",
            "/image/../secret.png",
            "/image/%2e%2e%2fsecret.png",
            "/secret.png",
            "/index.html",
        ),
        *("/report/index.html", "/report/cases/..%2findex.html", "/report/cases/%2e%2e/index.html", "/report/cases/"),
        *(
            "/report/cases/link.js",
            "/report/cases/%2fetc%2fpasswd",
            "/server.py",
            "/..%2f..%2fmine.yaml",
            "//etc/passwd",
        ),
    ],
)
def test_nothing_but_the_run_s_own_images_and_report_is_served(client: TestClient, ran: Path, path: str) -> None:
    (ran / "results/reports/mine/cases/link.js").symlink_to(ran / "secret.png")
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace(path, "")


def test_a_file_that_was_replaced_since_the_run_is_not_shown(client: TestClient, ran: Path) -> None:
    """By another image, or by a link to one that is none of the run's business."""
    row = served(ran).loaded.number("p3.png")
    assert client.get(f"/image/{row}").status_code == 200
    (ran / "photos/p3.png").unlink()
    (ran / "photos/p3.png").symlink_to(ran / "secret.png")
    assert client.get(f"/image/{row}").status_code == 404
    (ran / "photos/p3.png").unlink()
    assert client.get(f"/image/{row}").status_code == 404
    made_image(3).save(ran / "elsewhere.png")
    (ran / "photos/p3.png").symlink_to(ran / "elsewhere.png")
    assert client.get(f"/image/{row}").status_code == 200, "the same bytes"


def test_uploads_are_limited_in_bytes_and_pixels(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_PIXELS", 2_000_000)
    monkeypatch.setattr(server, "MOST_BYTES", 1 << 20)
    assert search(client, png(1, (2001, 1000)), 413)["error"] == "The image has more than 2 megapixels."
    assert search(client, bytes(2 << 20), 413)["error"] == "The file is larger than 1 MB."

    def parts() -> Iterator[bytes]:  # without a length in the header
        for _ in range(8):
            yield bytes(1 << 18)

    token = client.get("/facts").json()["token"]
    assert client.post("/search", content=parts(), headers={TOKEN: token}).status_code == 413


def test_what_is_no_image_is_refused_with_the_reason(client: TestClient) -> None:
    assert search(client, b"no image", 422)["error"] == "The image cannot be used: is text, not an image"
    assert search(client, b"", 422)["error"].startswith("The image cannot be used: ")
    assert search(client, png(1)[:300], 422)["error"].startswith("The image cannot be used: ")


def serve(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return str(result.stderr)


def test_the_command_says_what_is_missing(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no comparison or experiment 'mien'" in serve("mien")
    assert "experiment 'mine' has no results" in serve("mine", "--configfile", "mine.yaml")
    monkeypatch.setattr(packages, "missing", lambda names: [*names])
    needed = "lookalike: starlette, uvicorn are not installed."
    assert serve("mine").replace(" and", ",") == f"{needed} Run: pip install 'lookalike[serve]'\n"
