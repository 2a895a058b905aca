"""flashrank_lite/cli/reading.py: every shape of input, and what a bad line is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite.cli.reading import read_passages, read_source, sniff
from flashrank_lite.errors import InvalidInput


def read(content, name="<stdin>", input_format=None, field=None):
    data = content if isinstance(content, bytes) else content.encode()
    return read_passages(data, name, input_format, field)


def complaint(content, name="<stdin>", input_format=None, field=None):
    with pytest.raises(InvalidInput) as caught:
        read(content, name, input_format, field)
    return str(caught.value)


ROWS = [{"id": 1, "text": "one, two"}, {"id": 2, "text": "drei\nvier"}]
SHAPES = {
    "text": "first\nsecond\n",
    "jsonl": '{"text": "first"}\n{"text": "second"}\n',
    "json": '[{"text": "first"}, {"text": "second"}]',
    "csv": "id,text\n1,first\n2,second\n",
    "tsv": "id\ttext\n1\tfirst\n2\tsecond\n",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_shape_is_recognised_by_its_content(shape, ending, mark):
    passages = read(mark + SHAPES[shape].replace("\n", ending))
    assert [p if isinstance(p, str) else p["text"] for p in passages] == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("a.txt", "text"),
        ("a.JSONL", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.json", "json"),
        ("a.csv", "csv"),
        ("a.tsv", "tsv"),
        ("dir.csv/notes", "text"),
        ("notes.log", "text"),
    ],
)
def test_the_extension_decides_before_the_content(name, shape):
    passages = read(SHAPES[shape], name)
    assert [p if isinstance(p, str) else p["text"] for p in passages] == ["first", "second"]
    assert read('"quoted"\n', "a.txt") == ['"quoted"']


def test_the_input_option_decides_before_the_extension():
    assert read(SHAPES["jsonl"], "a.txt", "jsonl") == [{"text": "first"}, {"text": "second"}]
    assert read('{"text": "first"}', "a.jsonl", "text") == ['{"text": "first"}']


@pytest.mark.parametrize(
    "line",
    ["[1] a footnote", "{x} is a set", '"To be" is a verb', "id, name", "", "1,2,3", "[", "{"],
)
def test_prose_that_starts_like_another_format_stays_text(line):
    assert sniff(line, "text") == "text"


def test_text_is_one_passage_a_line_and_blank_lines_are_left_out():
    assert read("\n one \n\n  \ntwo\u2028still two\n") == ["one", "two\u2028still two"]


def test_json_lines_may_be_strings():
    assert read('"first"\n"second"\n') == ["first", "second"]
    assert read('["first", "second"]') == ["first", "second"]


def test_objects_keep_their_other_keys():
    assert read(json.dumps(ROWS)) == ROWS


def test_a_field_names_the_text_and_the_rest_is_kept_as_metadata():
    row = {"id": 7, "text": "headline", "body": "story", "meta": {"lang": "en"}, "year": 1999}
    assert read(json.dumps(row), "a.jsonl", field="body") == [
        {"id": 7, "text": "story", "meta": {"text": "headline", "year": 1999, "lang": "en"}}
    ]


def test_a_csv_cell_may_hold_commas_quotes_and_newlines():
    content = 'id,answer\n7,"one, ""two""\nthree"\n\n8,four\n'
    assert read(content, "a.csv", field="answer") == [
        {"id": "7", "text": 'one, "two"\nthree', "meta": {}},
        {"id": "8", "text": "four", "meta": {}},
    ]


def test_a_csv_cell_may_be_longer_than_the_csv_module_likes():
    assert len(read("text,id\n" + "word " * 50_000 + ",1\n", "a.csv")[0]["text"]) == 250_000


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "<stdin>"])
def test_nothing_in_gives_nothing_out(name):
    content = "text,id\n" if name == "a.csv" else ""
    assert read(content, name) == []


def test_an_unreadable_line_of_jsonl_is_named():
    said = complaint('{"text": "ok"}\n\n{"text": oops}\n', "a.jsonl")
    assert said.startswith("a.jsonl:3: not JSON (Expecting value, column 10)")
    assert "--input text" in said


def test_a_broken_json_array_is_named_with_its_line():
    assert complaint('[{"text": "a"},\n {"text": }]', "a.json").startswith("a.json:2: not JSON")


def test_jsonl_under_the_name_json_is_told_apart():
    assert "--input jsonl" in complaint(SHAPES["jsonl"], "a.json")


def test_a_json_object_is_not_an_array():
    assert "an object, not an array" in complaint('{"passages": []}', "a.json")


def test_json_nested_beyond_reading_is_refused():
    assert "a.json: not JSON that can be read" in complaint("[" * 200_000, "a.json")


def test_a_missing_field_lists_those_that_are_there():
    said = complaint('{"text": "a"}\n{"title": "b", "body": "c"}\n', "a.jsonl")
    assert said.startswith("a.jsonl:2: no field 'text' (it has: title, body)")
    assert "--field" in said


@pytest.mark.parametrize(
    ("value", "kind"),
    [("null", "null"), ("3", "a number"), ("true", "a boolean"), ("[1]", "an array")],
)
def test_a_field_or_an_item_that_is_not_text_is_refused(value, kind):
    assert f"item 1: field 'text' is {kind}" in complaint(f'[{{"text": {value}}}]', "a.json")
    assert f"item 1: {kind}, neither an object nor a string" in complaint(f"[{value}]", "a.json")


def test_a_missing_column_lists_those_that_are_there():
    said = complaint("id,answer\n1,a\n", "faq.csv")
    assert said.startswith("faq.csv:1: the header has no column 'text' (it has: id, answer)")


def test_a_column_named_twice_is_refused():
    assert "names 'id' twice" in complaint("id,id,text\n1,2,a\n", "a.csv")


@pytest.mark.parametrize("row", ["1,a,b", "1"])
def test_a_row_that_does_not_fit_the_header_is_named(row):
    said = complaint(f'id,text\n0,"two\nlines"\n{row}\n', "a.csv")
    assert said.startswith(f"a.csv:4: {row.count(',') + 1} cells where the header has 2")


def test_an_open_quote_is_named():
    assert "check the double quotes" in complaint('id,text\n1,"never closed\n', "a.csv")


def test_a_nul_in_a_table_is_named():
    assert complaint("id,text\n1,a\0b\n", "a.csv").startswith("a.csv:2: a NUL character")


def test_another_encoding_is_named_with_its_line():
    said = complaint("eins\nfünf\n".encode("latin1"), "a.txt")
    assert said.startswith("a.txt:2: not UTF-8 (byte 0xfc)")
    assert "iconv" in said


def test_a_field_of_plain_text_is_refused():
    assert "plain text, which has no field 'body'" in complaint("one\n", "a.txt", field="body")


def test_a_file_is_read_as_bytes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\r\n")
    assert read_source(str(path)) == (b"\xff\r\n", str(path))


@given(st.binary(max_size=200), st.sampled_from(["<stdin>", "a.jsonl", "a.json", "a.csv", "a.tsv"]))
def test_any_bytes_give_passages_or_a_complaint_with_the_name(data, name):
    try:
        passages = read_passages(data, name, None, None)
    except InvalidInput as error:
        passages, said = [], str(error)
    else:
        said = name
    assert said.startswith(name)
    assert all(isinstance(p if isinstance(p, str) else p["text"], str) for p in passages)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_json_lines_come_back_as_they_were(texts):
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    assert [p["text"] for p in read(content, "a.jsonl")] == texts
