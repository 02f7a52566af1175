"""Tables of requests: each way to write them gives the same, and a wrong row says so in its place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.batch.rows import read_rows, request_key
from sfumato.errors import DataError
from sfumato.request import Lora, Request

BASE = Request(steps=7).to_dict()


def table(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_all_ways_to_write_a_table_give_the_same_requests(tmp_path: Path) -> None:
    csv = "Prompt,Negative,CFG Scale,seed,size,lora,hires.strength\n"
    csv += '"a house, red",x,2.5,3,64x96,a.safetensors:0.5,0.4\na tree,,,,,,\n'
    full = {"prompt": "a house, red", "negative_prompt": "x", "guidance": 2.5, "seed": 3, "width": 64, "height": 96}
    full |= {"loras": [{"name": "a.safetensors", "weight": 0.5}], "hires": {"strength": 0.4}}
    objects = [full, {"prompt": "a tree"}]
    files = [
        table(tmp_path, "a.csv", csv),
        table(tmp_path, "a.jsonl", "\n\n".join(map(json.dumps, objects))),
        table(tmp_path, "a.json", json.dumps(objects)),
    ]
    expected = Request.from_dict({**BASE, **full})
    assert expected.loras == (Lora("a.safetensors", 0.5),)
    for path in files:
        first, second = read_rows(path, BASE)
        assert (first.request, first.number, first.error) == (expected, 1, "")
        assert second.request == Request(prompt="a tree", steps=7)
        assert first.key == request_key(expected)
    tabs = csv.replace('"a house, red"', "a house~ red").replace(",", "\t").replace("~", ",")
    assert read_rows(table(tmp_path, "a.tsv", tabs), BASE)[0].request == expected


def test_a_wrong_row_says_so_and_the_others_stand(tmp_path: Path) -> None:
    text = "prompt,steps\na,5\nb,0\nc,5,6\nd,9\n"
    rows = read_rows(table(tmp_path, "a.csv", text), BASE)
    assert [row.request is not None for row in rows] == [True, False, False, True]
    assert "steps is 0" in rows[1].error
    assert "3 cells" in rows[2].error
    lines = '{"prompt": "a"}\nnonsense\n{"promt": "b"}\n[1]\n'
    rows = read_rows(table(tmp_path, "a.jsonl", lines), BASE)
    assert [bool(row.error) for row in rows] == [False, True, True, True]
    assert "promt" in rows[2].error


def test_what_ends_lines_elsewhere_may_stand_in_the_texts_of_json_lines(tmp_path: Path) -> None:
    prompts = ["a\u2028b", "c\u0085d"]
    text = "\n".join(json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts)
    rows = read_rows(table(tmp_path, "a.jsonl", text), BASE)
    assert [row.request and row.request.prompt for row in rows] == prompts


def test_the_same_row_twice_is_two_pictures(tmp_path: Path) -> None:
    first, second = read_rows(table(tmp_path, "a.csv", "prompt\na\na\n"), BASE)
    assert first.request == second.request
    assert first.key != second.key


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.txt", "x", "no table"),
        ("a.csv", "prompt,stepps\na,1\n", "stepps"),
        ("a.csv", "prompt\n", "no rows"),
        ("a.csv", "", "no rows"),
        ("a.json", "{", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_rows(table(tmp_path, name, text), BASE)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "missing.csv", BASE)


@given(st.permutations(["prompt", "steps", "seed", "guidance", "width"]))
def test_the_key_does_not_depend_on_the_order_of_the_fields(order: list[str]) -> None:
    values = {"prompt": "a", "steps": 3, "seed": 4, "guidance": 2.0, "width": 64}
    key = request_key(Request.from_dict({name: values[name] for name in order}))
    assert key == request_key(Request.from_dict(values))
    assert key != request_key(Request.from_dict({**values, "seed": 5}))


def test_a_seed_of_minus_one_is_left_to_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("prompt,seed\na,-1\nb,3\n")
    assert [row.request.seed for row in read_rows(tmp_path / "table.csv", {}) if row.request] == [None, 3]
