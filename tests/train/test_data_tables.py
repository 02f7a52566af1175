"""Parquet and arrow files, and sets saved by Hugging Face's datasets, in the layout that it writes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from set_maker import BLUE, GREEN, RED, colours, encoded, opened, picture, said

from sfumato.errors import DataError

ROWS = {
    "image": [{"bytes": encoded(colour), "path": f"{n}.png"} for n, colour in enumerate((RED, GREEN, BLUE))],
    "text": ["red", "green", "blue"],
}


def table(**columns: list[Any]) -> pa.Table:
    return pa.table({**ROWS, **columns})


def saved(folder: Path, content: pa.Table, files: int = 1) -> Path:
    """A folder as `Dataset.save_to_disk` writes it: arrow streams, state.json and dataset_info.json."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    each = -(-content.num_rows // files)
    for number, name in enumerate(names):
        part = content.slice(number * each, each)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, part.schema) as writer:
            writer.write_table(part, max_chunksize=1)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None, "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


@pytest.mark.parametrize("rows_in_group", [1, 2, 100])
def test_parquet_with_pictures_as_structs(tmp_path: Path, rows_in_group: int) -> None:
    pq.write_table(table(), tmp_path / "train.parquet", row_group_size=rows_in_group)
    samples = opened(tmp_path)
    assert samples.source.kind == "1 parquet file"
    assert said(samples) == ["red", "green", "blue"]
    assert colours(samples) == [RED, GREEN, BLUE]
    assert [samples.record(1).name, samples.captions([2, 0], [5, 5])] == ["train.parquet, row 1", ["blue", "red"]]


def test_several_files_and_columns_of_other_names(tmp_path: Path) -> None:
    for number, colour in enumerate((BLUE, RED)):
        columns = {"jpg": [encoded(colour)], "also": [b"no picture"], "caption": [["a", "b"]]}
        pq.write_table(pa.table(columns), tmp_path / f"part-{number}.parquet")
    samples = opened(tmp_path, column="caption", picture_column="jpg")
    assert (said(samples, draw=1), colours(samples)) == (["b", "b"], [BLUE, RED])
    with pytest.raises(DataError, match=r"several columns can hold pictures: 'jpg', 'also'\. Name one"):
        opened(tmp_path, column="caption")
    with pytest.raises(DataError, match="no column 'text' of captions, but 'jpg', 'also', 'caption'"):
        opened(tmp_path)
    with pytest.raises(DataError, match="no column 'png' of pictures"):
        opened(tmp_path, column="caption", picture_column="png")


def test_a_set_saved_to_disk_and_its_splits(tmp_path: Path) -> None:
    assert said(opened(saved(tmp_path / "plain", table(), files=2))) == ["red", "green", "blue"]
    assert colours(opened(tmp_path / "plain")) == [RED, GREEN, BLUE]
    root = tmp_path / "dict"
    saved(root / "test", table().slice(2))
    saved(root / "train", table().slice(0, 2))
    (root / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    assert said(opened(root)) == ["red", "green"]
    assert opened(root).source.kind == "set saved by datasets"
    assert said(opened(root / "test")) == ["blue"]
    (root / "dataset_dict.json").write_text('{"splits": ["test", "other"]}')
    with pytest.raises(DataError, match="has the splits test, other; name the folder of one"):
        opened(root)
    (root / "dataset_dict.json").write_text('{"splits": ["../plain"]}')
    with pytest.raises(DataError, match="is not the name of a split"):
        opened(root)


def test_what_is_wrong_in_a_saved_set(tmp_path: Path) -> None:
    root = saved(tmp_path / "plain", table())
    (root / "state.json").write_text('{"_data_files": [{"filename": "../plain/x.arrow"}]}')
    with pytest.raises(DataError, match="names no files of data"):
        opened(root)
    (root / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    with pytest.raises(DataError, match="There is no table"):
        opened(root)
    (root / "state.json").write_text('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}')
    with pytest.raises(DataError, match="selection of other rows"):
        opened(root)
    (root / "state.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        opened(root)


def test_an_arrow_file_of_the_other_format_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table().schema) as writer:
        writer.write_table(table())
    assert colours(opened(path)) == [RED, GREEN, BLUE]
    for name in ("b.arrow", "b.parquet"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match="is damaged, or neither parquet nor arrow"):
            opened(tmp_path / name)


def test_cells_without_pictures_or_words(tmp_path: Path) -> None:
    picture(tmp_path / "in/0.png", GREEN)
    cells = [
        {"bytes": None, "path": "in/0.png"},
        {"bytes": None, "path": "../outside.png"},
        {"bytes": None, "path": None},
        {"bytes": b"no picture", "path": None},
    ]
    picture(tmp_path.parent / "outside.png")
    pq.write_table(pa.table({"image": cells, "text": ["a", "b", None, "d"]}), tmp_path / "a.parquet")
    samples = opened(tmp_path / "a.parquet")
    assert (said(samples), colours(samples)) == (["a"], [GREEN])
    reasons = [each.reason for each in samples.left_out]
    assert "not in the folder of the table" in reasons[0]
    assert "holds no bytes" in reasons[1]
    assert "is not a PNG" in reasons[2]
    assert samples.source.records[2].captions == ()


def test_without_pyarrow_other_sets_are_read_and_the_error_says_what_to_install(tmp_path: Path) -> None:
    picture(tmp_path / "set/a.png", text="a")
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from sfumato.errors import DataError\nfrom sfumato.train.data import read_source\n"
        f"assert len(read_source({str(tmp_path / 'set')!r}).records) == 1\n"
        f"try:\n    read_source({str(path)!r})\nexcept DataError as error:\n    sys.stdout.write(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pyarrow, which cannot be used" in done.stdout
    assert "pip install 'sfumato[arrow]'" in done.stdout
