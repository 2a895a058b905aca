"""What files are made of: encodings, compression, Parquet and Arrow, and what is no text at all."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys

import pytest
from cli_support import EXAMPLE, QUERY, ROOT, rows, run

from flashrank_lite import MissingExtra
from flashrank_lite.cli import main
from flashrank_lite.errors import InvalidInput
from flashrank_lite.reading import ReadOptions, read_file

LINES = ["Wie lange lebt ein Floh?", "Fünf Wochen, naïvement gefragt.", "ノミの寿命は数週間です。"]
TEXT = "\n".join(LINES) + "\n"


@pytest.fixture
def read(tmp_path):
    def call(data, name="a.txt", **options):
        path = tmp_path / name
        path.write_bytes(data)
        return [passage.text for passage in read_file(str(path), ReadOptions(**options))]

    return call


@pytest.fixture
def complaint(read):
    def call(data, name="a.txt", kind=InvalidInput, **options):
        with pytest.raises(kind) as caught:
            read(data, name, **options)
        return str(caught.value).partition("a.")[2]

    return call


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf_8_and_whatever_bears_a_byte_order_mark_is_read(read, encoding):
    assert read(TEXT.encode(encoding)) == LINES


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_both_byte_orders_are_read_by_their_mark(read, encoding):
    assert read(f"\ufeff{TEXT}".encode(encoding)) == LINES


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [TEXT, "Only ASCII here.\n", "今日は\nいい天気\n"])
def test_what_lacks_the_mark_is_refused_with_the_encoding_to_name(read, complaint, encoding, text):
    said = complaint(text.encode(encoding))
    assert "without a byte order mark" in said
    assert f"--encoding {encoding}" in said
    assert read(text.encode(encoding), encoding=encoding) == text.splitlines()


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("cp1252", "“Fünf” naïve €"),
        ("shift_jis", "ノミの寿命"),
        ("gb18030", "跳蚤的寿命"),
        ("koi8-r", "блоха"),
    ],
)
def test_an_encoding_can_be_named(read, encoding, line):
    assert read(f"{line}\n".encode(encoding), encoding=encoding) == [line]


def test_another_encoding_is_refused_with_its_line_and_the_flag(complaint):
    said = complaint("eins\nfünf\n".encode("latin1"))
    assert said.startswith("txt:2: not UTF-8 (byte 0xfc)")
    assert "--encoding cp1252" in said


@pytest.mark.parametrize("encoding", ["latin1", "cp437"])
@pytest.mark.parametrize("real", ["utf-16", "utf-16-le", "utf-32-be"])
def test_a_wrong_encoding_is_noticed_by_what_comes_out(complaint, encoding, real):
    said = complaint(TEXT.encode(real), encoding=encoding)
    assert f"not {encoding}, which gives control characters" in said
    advice = "leave --encoding out" if real == "utf-16" else f"--encoding {real}"
    assert advice in said


def test_bytes_that_the_named_encoding_does_not_have_are_refused_with_their_line(complaint):
    assert complaint("a\nfünf\n".encode("latin1"), encoding="ascii").startswith("txt:2: not ascii")
    assert "not utf-16-le" in complaint("a\nb".encode("utf-16-le") + b"x", encoding="utf-16-le")


def test_a_mark_beside_the_encoding_it_stands_for_is_no_part_of_the_text(read):
    assert read(b"\xef\xbb\xbfone\n", encoding="utf-8") == ["one"]
    assert read("\ufeffone\n".encode("utf-16-le"), encoding="utf-16-le") == ["one"]


def test_the_real_command_takes_an_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("Fünf Wochen\n".encode("cp1252"))
    done = run("rank", "q", path)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert rows(run("rank", "q", path, "--encoding", "cp1252").out)[0]["text"] == "Fünf Wochen"


# What is no text


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF"),
        (b"PK\x03\x04\x14\0\x06\0", "a ZIP archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "an old Office document"),
        (b"SQLite format 3\0\x10\0", "an SQLite database"),
        (b"\x00\x01\x02\x03\xff\xfe\xfa", "binary"),
        (b"\x80\x04\x95\x1e\x01", "binary"),
    ],
)
def test_binary_is_refused_as_what_it_is(complaint, start, kind):
    said = complaint(start + bytes(range(256)) * 4)
    assert f"{kind}" in said
    assert "not text" in said


@pytest.mark.parametrize("name", ["model_int8.onnx"])
def test_a_file_of_this_project_that_is_binary_is_refused(name):
    with pytest.raises(InvalidInput, match="binary, not text"):
        read_file(str(ROOT / "flashrank_lite" / "models" / "nano" / name))


def test_a_stray_nul_in_text_is_named_with_its_line(complaint):
    assert "line 2 has a NUL character" in complaint(b"one line\nid\0text and more\n")
    assert "line 2 has a NUL character" in complaint(b"id,text\n1,a\0b\n", "a.csv")


# Compression


def zstd(data):
    try:
        import zstandard
    except ImportError:
        if shutil.which("zstd") is None:
            pytest.skip("nothing here writes Zstandard")
        return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout
    return zstandard.compress(data)


COMPRESSORS = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_compressed_file_is_read_as_what_it_holds(read, ending):
    data = COMPRESSORS[ending](b'{"text": "first"}\n"second"\n')
    assert read(data, f"a.jsonl.{ending}") == ["first", "second"]
    assert read(data, "a.jsonl") == ["first", "second"]  # the first bytes say it, not the name


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_several_compressed_parts_are_read_as_one(read, ending):
    compress = COMPRESSORS[ending]
    assert read(compress(b"first\n") + compress(b"second\n"), f"a.txt.{ending}") == [
        "first",
        "second",
    ]


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_compressed_file_that_was_cut_short_is_refused(complaint, ending):
    data = COMPRESSORS[ending](EXAMPLE.read_bytes())
    assert "damaged or cut short" in complaint(data[: len(data) // 2], f"a.jsonl.{ending}")


def test_compressed_standard_input_is_read(tmp_path):
    done = run("rank", QUERY, "-k", "1", stdin=gzip.compress(EXAMPLE.read_bytes()))
    assert rows(done.out)[0]["id"] == "history-of-agriculture"


def test_zstandard_that_cannot_be_read_says_what_would(complaint, monkeypatch):
    data = zstd(b"first\n")
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    said = complaint(data, "a.txt.zst", kind=MissingExtra)
    assert "pip install zstandard" in said
    assert "Python 3.14" in said


# Parquet and Arrow


def table():
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table({"id": [7, 8], "text": ["first", "second"], "year": [1999, None]})


def parquet(of):
    from pyarrow import parquet

    to = io.BytesIO()
    parquet.write_table(of, to)
    return to.getvalue()


def arrow_file(of):
    from pyarrow import ipc

    to = io.BytesIO()
    with ipc.new_file(to, of.schema) as writer:
        writer.write_table(of)
    return to.getvalue()


def arrow_stream(of):
    from pyarrow import ipc

    to = io.BytesIO()
    with ipc.new_stream(to, of.schema) as writer:
        writer.write_table(of)
    return to.getvalue()


@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream])
def test_parquet_and_arrow_are_read_whatever_they_are_called(tmp_path, write):
    path = tmp_path / "passages"
    path.write_bytes(write(table()))
    done = run("rank", "first", path)
    found = {row["id"]: (row["text"], row["meta"]) for row in rows(done.out)}
    assert found == {7: ("first", {"year": 1999}), 8: ("second", {"year": None})}
    assert done.err == ""


def test_a_field_of_parquet_may_be_a_path(read):
    pyarrow = pytest.importorskip("pyarrow")
    nested = pyarrow.table({"doc": [{"text": "first"}, {"text": "second"}]})
    assert read(parquet(nested), "a.parquet", field="doc.text") == ["first", "second"]


def test_a_row_without_text_is_named(complaint):
    pyarrow = pytest.importorskip("pyarrow")
    said = complaint(parquet(pyarrow.table({"text": ["first", None]})), "a.parquet")
    assert said.startswith("parquet: row 2: ")


def test_parquet_that_was_cut_short_is_refused(complaint):
    data = parquet(table())
    assert "Parquet that cannot be read" in complaint(data[: len(data) // 2], "a.parquet")


def test_without_pyarrow_the_error_names_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(table()))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert main(["rank", "q", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "a file of Parquet, which needs pyarrow: pip install pyarrow" in err
