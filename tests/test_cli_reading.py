"""How the command reads passages: every format, what decides which it is, what a bad line is told.

`read_file` is what each command calls; encodings and compression are in test_cli_encodings.py.
"""

import io
import json
import sys
from unittest import mock

import pytest
from cli_support import rows, run
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite.errors import InvalidInput
from flashrank_lite.reading import ReadOptions, read_file

SHAPES = {
    "text": "first\nsecond\n",
    "jsonl": '{"text": "first"}\n{"text": "second"}\n',
    "json": '[{"text": "first"}, {"text": "second"}]',
    "csv": "id,text\n1,first\n2,second\n",
    "tsv": "id\ttext\n1\tfirst\n2\tsecond\n",
}


def piped(content, **options):
    """The passages of standard input, and what was said about it."""
    data = content if isinstance(content, bytes) else content.encode()
    said = []
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))):
        return read_file(None, ReadOptions(**options), said.append), said


@pytest.fixture
def read(tmp_path):
    """The passages of a file with this name and content; nothing may be said about it."""

    def call(content, name, **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        said = []
        passages = read_file(str(path), ReadOptions(**options), said.append)
        assert said == []
        return passages

    return call


@pytest.fixture
def complaint(read, tmp_path):
    """What is said about a file that cannot be read, with its folder left out."""

    def call(content, name, **options):
        with pytest.raises(InvalidInput) as caught:
            read(content, name, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return call


def texts(passages):
    return [passage.text for passage in passages]


# Which format it is


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_standard_input_is_read_by_its_content_and_that_is_said(shape, ending):
    passages, said = piped(SHAPES[shape].replace("\n", ending))
    assert texts(passages) == ["first", "second"]
    assert len(said) == (shape != "text")
    assert all(line.startswith("<stdin>: read as ") and "--input text" in line for line in said)


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
def test_the_extension_decides_before_the_content(read, name, shape):
    assert texts(read(SHAPES[shape], name)) == ["first", "second"]
    assert texts(read('"quoted"\n', "a.txt")) == ['"quoted"']


def test_the_input_option_decides_before_the_extension(read):
    assert texts(read(SHAPES["jsonl"], "a.txt", input_format="jsonl")) == ["first", "second"]
    line = '{"text": "first"}'
    assert texts(read(line, "a.jsonl", input_format="text")) == [line]


@pytest.mark.parametrize(
    "lines",
    [
        ["[1] a footnote", "more"],
        ["{x} is a set"],
        ['"To be" is a verb'],
        ["id, name"],
        ["1,2,3"],
        ["["],
        ["{"],
        ["text,id"],  # a header without rows would be no passage at all
        ["Hello,text", "a line without a comma"],
        ["text, and then some", "one, two, three"],
        ["text\tid", "one"],
        ["text", "one", "two"],
    ],
)
def test_no_line_of_plain_text_on_standard_input_is_lost(lines):
    passages, said = piped("\n".join(lines) + "\n")
    assert texts(passages) == lines
    assert said == []


def test_the_real_command_says_what_it_took_for_a_header():
    done = run("rank", "first", stdin=SHAPES["csv"].encode())
    assert {row["text"] for row in rows(done.out)} == {"first", "second"}
    assert done.err == (
        "<stdin>: read as a table with commas, its first line as the header "
        "(--input text reads lines of plain text)\n"
    )
    plain = run("rank", "first", "--input", "text", stdin=SHAPES["csv"].encode())
    assert {row["text"] for row in rows(plain.out)} == {"id,text", "1,first", "2,second"}
    assert plain.err == ""


# Plain text, JSON


def test_text_is_one_passage_a_line_and_blank_lines_are_left_out(read):
    assert texts(read("\n one \n\n  \ntwo\u2028still two\n", "a.txt")) == [
        "one",
        "two\u2028still two",
    ]


def test_json_may_hold_strings(read):
    assert texts(read('"first"\n"second"\n', "a.jsonl")) == ["first", "second"]
    assert texts(read('["first", "second"]', "a.json")) == ["first", "second"]


def test_objects_keep_their_id_and_their_other_keys(read):
    (passage,) = read('{"id": 1, "text": "one, two", "lang": "en"}', "a.jsonl")
    assert (passage.id, passage.text, passage.meta) == (1, "one, two", {"lang": "en"})


@pytest.mark.parametrize(
    "answer",
    [
        {"results": [{"text": "first"}, {"text": "second"}]},
        {"documents": ["first", "second"]},
        {"hits": {"total": 2, "hits": [{"_source": {"text": t}} for t in ("first", "second")]}},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_list_in_a_search_engines_answer_is_read(read, answer, indent):
    content = json.dumps(answer, indent=indent)
    assert texts(read(content, "a.json")) == ["first", "second"]
    passages, said = piped(content)
    assert texts(passages) == ["first", "second"]
    assert "one JSON object" in said[0]


def test_one_object_that_is_a_passage_is_one_passage(read):
    assert texts(read('{"text": "first"}', "a.json")) == ["first"]
    assert texts(piped('{\n"text": "first"\n}')[0]) == ["first"]
    assert texts(piped('{"body": "first"}', field="body")[0]) == ["first"]


def test_an_unreadable_line_of_jsonl_is_named(complaint):
    said = complaint('{"text": "ok"}\n\n{"text": oops}\n', "a.jsonl")
    assert said.startswith("a.jsonl:3: not JSON (Expecting value, column 10)")
    assert "--input text" in said


def test_a_broken_json_array_is_named_with_its_line(complaint):
    assert complaint('[{"text": "a"},\n {"text": }]', "a.json").startswith("a.json:2: not JSON")


def test_jsonl_under_the_name_json_is_told_apart(complaint):
    assert "--input jsonl" in complaint(SHAPES["jsonl"], "a.json")


def test_a_json_object_without_passages_is_refused(complaint):
    assert "a number, not an array" in complaint("3", "a.json")
    said = complaint('{"took": 3}', "a.json")
    assert said.startswith("a.json: item 1: this passage is a dict without the key 'text'")
    said = complaint('{"results": ["a"], "documents": ["b"]}', "a.json")
    assert said.startswith("a.json: ")
    assert "several lists" in said


def test_json_nested_beyond_reading_is_refused(complaint):
    assert "a.json: not JSON that can be read" in complaint("[" * 200_000, "a.json")


@pytest.mark.parametrize(("value", "kind"), [("null", "None"), ("3", "int"), ("[1]", "list")])
def test_a_text_or_an_item_that_is_none_is_refused_with_its_place(complaint, value, kind):
    said = complaint(f'["fine", {{"text": {value}}}]', "a.json")
    assert said.startswith("a.json: item 2: the text of this passage is")
    assert kind in said
    said = complaint(f'"fine"\n{value}\n', "a.jsonl")
    assert said.startswith("a.jsonl:2: this passage is")
    assert kind in said


# Where the text is: --field, --id


def test_a_field_names_the_text_and_the_rest_is_metadata(read):
    row = {"id": 7, "text": "headline", "body": "story", "meta": {"lang": "en"}, "year": 1999}
    (passage,) = read(json.dumps(row), "a.jsonl", field="body")
    assert (passage.id, passage.text) == (7, "story")
    assert passage.meta == {"text": "headline", "year": 1999, "lang": "en"}


def test_a_field_may_be_a_path_or_several_to_join(read):
    row = {"doc": {"title": "Fleas", "text": "They jump."}}
    content = json.dumps(row)
    assert texts(read(content, "a.jsonl", field="doc.text")) == ["They jump."]
    assert texts(read(content, "a.jsonl", field="doc.title,doc.text")) == ["Fleas\nThey jump."]
    assert texts(read(content, "a.jsonl", field="doc.title, doc.text")) == ["Fleas\nThey jump."]
    table = "title,body\nFleas,They jump.\n"
    assert texts(read(table, "a.csv", field="title,body")) == ["Fleas\nThey jump."]


def test_a_missing_field_lists_those_that_are_there_and_says_which_flag(complaint):
    said = complaint('{"text": "a"}\n{"title": "b", "body": "longest"}\n', "a.jsonl")
    assert said.startswith("a.jsonl:2: this passage is a dict without the key 'text'")
    assert "'title', 'body'" in said
    assert "--field 'body'" in said
    assert "text=" not in said
    said = complaint('{"text": "a"}\n{"title": "b"}\n', "a.jsonl", field="text")
    assert said.startswith("a.jsonl:2: this passage is a dict without 'text'")


def test_a_field_that_no_passage_has_is_refused(complaint):
    assert "'titel'" in complaint('{"text": "a"}\n{"text": "b"}\n', "a.jsonl", field="titel,text")


def test_a_field_of_plain_text_is_refused(complaint):
    assert "plain text, which has no field 'body'" in complaint("one\n", "a.txt", field="body")


def test_an_id_may_have_any_name(read, complaint):
    (passage,) = read('{"pid": 7, "text": "a", "x": 1}', "a.jsonl", id_field="pid")
    assert (passage.id, passage.meta) == (7, {"x": 1})
    said = complaint('{"pid": 7, "text": "a"}\n{"text": "b"}', "a.jsonl", id_field="pid")
    assert said.startswith("a.jsonl:2: no 'pid'")


# CSV


def test_a_csv_cell_may_hold_commas_quotes_and_newlines(read):
    content = 'id,answer\n7,"one, ""two""\nthree"\n\n8,four\n'
    first, second = read(content, "a.csv", field="answer")
    assert (first.id, first.text, first.meta) == ("7", 'one, "two"\nthree', {})
    assert (second.id, second.text) == ("8", "four")


def test_a_csv_cell_may_be_longer_than_the_csv_module_likes(read):
    (passage,) = read("text,id\n" + "word " * 50_000 + ",1\n", "a.csv")
    assert len(passage.text) == 250_000


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(read, delimiter):
    content = f'id{delimiter}text\n1{delimiter}"first, one; two | three"\n'
    (passage,) = read(content, "a.csv")
    assert (passage.id, passage.text) == ("1", "first, one; two | three")


def test_a_file_of_european_excel_is_read(read):
    content = "sep=;\r\nid;text\r\n1;first, with a comma\r\n"
    (passage,) = read(content.encode("utf-8-sig"), "a.csv")
    assert (passage.id, passage.text) == ("1", "first, with a comma")


def test_a_delimiter_can_be_given(read):
    assert texts(read("id:text\n1:first\n", "a.csv", delimiter=":")) == ["first"]
    assert texts(piped("id:text\n1:first\n", delimiter=":")[0]) == ["first"]
    done = run("rank", "q", "--delimiter", "tab", stdin=b"text\tid\nfirst\t7\n")
    assert [(row["id"], row["text"]) for row in rows(done.out)] == [("7", "first")]


def test_a_table_without_a_header_has_its_columns_by_number(read, complaint):
    content = "1,first\n2,second\n"
    assert texts(read(content, "a.csv", header=False, field="2")) == ["first", "second"]
    assert texts(read("first\nsecond\n", "a.csv", header=False)) == ["first", "second"]
    (first, _) = read(content, "a.csv", header=False, field="2", id_field="1")
    assert first.id == "1"
    assert "--field 1" in complaint(content, "a.csv", header=False)
    assert "2 columns" in complaint(content, "a.csv", header=False, field="3")


def test_a_csv_file_whose_first_line_may_be_no_header_says_how_to_keep_it(complaint):
    said = complaint("first passage\nsecond passage\n", "a.csv")
    assert said.startswith("a.csv:1: the header has no column 'text' (it has: first passage)")
    assert "--no-header" in said


def test_a_missing_column_lists_those_that_are_there(complaint):
    said = complaint("id,answer\n1,a\n", "faq.csv")
    assert said.startswith("faq.csv:1: the header has no column 'text' (it has: id, answer)")
    said = complaint("id;answer\n1;a\n", "faq.csv", field="answer,title")
    assert said.startswith("faq.csv:1: the header has no column 'title' (it has: id, answer)")


def test_a_column_named_twice_is_refused(complaint):
    assert "names 'id' twice" in complaint("id,id,text\n1,2,a\n", "a.csv")


@pytest.mark.parametrize("row", ["1,a,b", "1"])
def test_a_row_that_does_not_fit_the_header_is_named(complaint, row):
    said = complaint(f'id,text\n0,"two\nlines"\n{row}\n', "a.csv")
    assert said.startswith(f"a.csv:4: {row.count(',') + 1} cells where the first row has 2")


def test_an_open_quote_is_named(complaint):
    assert "check the double quotes" in complaint('id,text\n1,"never closed\n', "a.csv")


# Whatever comes


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a"])
def test_nothing_in_gives_nothing_out(read, name):
    assert read("text,id\n" if name == "a.csv" else "", name) == []


@given(st.binary(max_size=200), st.sampled_from([None, "jsonl", "json", "csv", "tsv", "text"]))
def test_any_bytes_give_passages_or_a_complaint_with_the_name(data, input_format):
    try:
        found, said = texts(piped(data, input_format=input_format)[0]), "<stdin>"
    except InvalidInput as error:
        found, said = [], str(error)
    assert said.startswith("<stdin>")
    assert all(isinstance(text, str) for text in found)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_json_lines_come_back_as_they_were(given_texts):
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in given_texts)
    if "\0" not in content:
        assert texts(piped(content, input_format="jsonl")[0]) == given_texts
