"""Tables by column: exact ids and fractions, missing entries, nested columns, whole matrices."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from connectinfer.data.connectome import to_dense
from connectinfer.data.files import read_tree
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.tables import read_table

ROOT_IDS = [648518346349539437, 648518346349539438]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_ids_and_fractions_keep_every_bit(tmp_path, name):
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-500, 500)[::-1].clip(-300, 300)
    table = pd.DataFrame({"id": np.arange(1000) + ROOT_IDS[0], "value": values})
    table.to_csv(tmp_path / name, index=False) if name == "a.csv" else table.to_parquet(tmp_path / name)
    read = read_table(tmp_path / name)
    assert read["id"].dtype == np.int64
    assert (read["id"] == table["id"]).all()
    assert (read["value"] == values).all()


def test_parquet_columns_of_every_kind_become_plain_arrays(tmp_path):
    table = pa.table(
        {
            "nullable": pa.array([1, None]),
            "ids": pa.array(ROOT_IDS, pa.int64()),
            "category": pa.array(["L4", None]).dictionary_encode(),
            "flag": pa.array([True, False]),
            "unknown": pa.array([True, None]),
            "small": pa.array([0.5, None], pa.float32()),
            "text": pa.array(["a", None]),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert {name: each.dtype.kind for name, each in read.items()} == {
        "nullable": "f", "ids": "i", "category": "U", "flag": "b", "unknown": "f", "small": "f", "text": "U",
    }  # fmt: skip
    assert read["ids"].tolist() == ROOT_IDS
    assert read["category"].tolist() == ["L4", ""]
    np.testing.assert_array_equal(read["unknown"], [1, np.nan])


def test_a_missing_id_beyond_the_digits_of_a_float_is_refused(tmp_path):
    parquet.write_table(pa.table({"id": pa.array([ROOT_IDS[0], None])}), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match="'id' holds whole numbers beyond 2\\^53 beside missing ones \\(first in row 1"
    ):
        read_table(tmp_path / "a.parquet")


def test_nested_parquet_columns_are_lists_and_records(tmp_path):
    table = {"times": [[0.05, 0.15], [0.11]], "where": [{"depth": 5}, {"depth": 7}], "unit": [3, 8]}
    pd.DataFrame(table).to_parquet(tmp_path / "units.parquet")
    assert [each.tolist() for each in read_table(tmp_path / "units.parquet")["times"]] == table["times"]
    read = open_recording(
        tmp_path / "units.parquet",
        fields={"spike_times": "times", "unit": "unit", "depth": ("unit", "where.depth")},
        bin_width=0.1,
    )
    assert read["counts"].values.tolist() == [[[1, 0], [1, 1]]]
    assert read["depth"].values.tolist() == [5, 7]


@pytest.mark.parametrize("name", ["spikes.csv", "spikes.parquet"])
def test_spike_tables_open_and_unsorted_ones_are_refused_with_what_to_do(tmp_path, name):
    table = pd.DataFrame({"unit": [3, 8, 3], "time": [0.01, 0.12, 0.19]})
    write = "to_csv" if name.endswith("csv") else "to_parquet"
    options = {"fields": {"spike_times": "time", "unit": "unit"}, "bin_width": 0.1}
    getattr(table, write)(tmp_path / name, index=False)
    assert open_recording(tmp_path / name, **options)["counts"].values.tolist() == [[[1, 0], [1, 1]]]
    getattr(table.iloc[::-1], write)(tmp_path / name, index=False)
    with pytest.raises(ValueError, match=r"not sorted: 0.12 s follows 0.19 s .* Sort them, together with their unit"):
        open_recording(tmp_path / name, **options)


def test_a_parquet_file_that_claims_more_rows_than_it_can_hold_is_refused(tmp_path):
    column = pa.array(np.zeros(20_000_000, np.int8))
    parquet.write_table(pa.table({"x": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"a.parquet cannot be read .* claims 20000000 rows"):
        read_table(tmp_path / "a.parquet")


def test_a_damaged_parquet_file_is_refused_by_name_or_still_a_table(tmp_path):
    pd.DataFrame({"pre": ["a", "b"], "post": ["b", "a"], "weight": [0.5, 1.5]}).to_parquet(tmp_path / "whole.parquet")
    whole, random, refused = (tmp_path / "whole.parquet").read_bytes(), np.random.default_rng(0), []
    for attempt in range(60):
        damaged = bytearray(whole[: random.integers(len(whole))] if attempt % 4 == 0 else whole)
        for at in random.integers(max(len(damaged), 1), size=3 if damaged else 0):
            damaged[at] = random.integers(256)
        (tmp_path / "damaged.parquet").write_bytes(damaged)
        try:
            read_table(tmp_path / "damaged.parquet")
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) >= 20
    assert all(message.startswith("damaged.parquet cannot be read as a table") for message in refused)


def test_excel_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "edges.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"no reader for edges.xlsx. Save the sheet as .csv"):
        open_connectome(tmp_path / "edges.xlsx")


def test_a_matrix_in_a_table_is_its_columns_side_by_side(tmp_path):
    (tmp_path / "w.csv").write_text("0,5,0\n0,0,7\n0,0,0\n")
    rows_are_post = open_connectome(tmp_path / "w.csv", fields={"weight": "*"})
    assert to_dense(rows_are_post, "weight").values.tolist() == [[0, 5, 0], [0, 0, 7], [0, 0, 0]]
    rows_are_pre = open_connectome(tmp_path / "w.csv", fields={"weight": lambda file: file.matrix().T})
    assert to_dense(rows_are_pre, "weight").values.T.tolist() == [[0, 5, 0], [0, 0, 7], [0, 0, 0]]
    assert rows_are_pre.attrs["left_out"] == ""


def test_a_matrix_with_names_around_it_is_picked_by_pattern(tmp_path):
    (tmp_path / "w.csv").write_text("name,n_AVA,n_RIM\nAVA,0,5\nRIM,2,0\n")
    made = open_connectome(tmp_path / "w.csv", fields={"weight": lambda file: file.matrix("n_*").T, "neuron": "name"})
    assert to_dense(made, "weight").sel(post="RIM", pre="AVA") == 5
    with pytest.raises(ValueError, match=r"the fields '\*' form no matrix: 3 match, .* \['name'\] hold no numbers"):
        read_tree(tmp_path / "w.csv").matrix()
    with pytest.raises(ValueError, match=r"the fields 'x\*' form no matrix: 0 match"):
        read_tree(tmp_path / "w.csv").matrix("x*")


def test_words_for_missing_are_names_among_text_and_missing_among_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("id,depth,kind,unknown\nNA,1,x,NA\nNone,NA,,NaN\na,3,null,\n")
    read = read_table(tmp_path / "a.csv")
    assert read["id"].tolist() == ["NA", "None", "a"]
    assert read["kind"].tolist() == ["x", "", "null"]
    np.testing.assert_array_equal(read["depth"], [1, np.nan, 3])
    assert np.isnan(read["unknown"]).all()


def test_neurons_called_na_and_none_are_two(tmp_path):
    (tmp_path / "a.csv").write_text("pre,post\nNA,b\nNone,b\nb,NA\n")
    assert open_connectome(tmp_path / "a.csv")["neuron"].values.tolist() == ["NA", "None", "b"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param("a,b\nc,\n,b\n,c\n", id="text"),
        pytest.param("1,2\n3,\n,2\n,3\n", id="integers"),
        pytest.param("1,2\n3,\nNA,2\nNA,3\n", id="word"),
    ],
)
def test_a_missing_id_is_refused_by_column_and_row(tmp_path, rows):
    (tmp_path / "a.csv").write_text("pre,post\n" + rows)
    with pytest.raises(ValueError, match=r"a.csv: the `pre` id is missing in row 2 and 1 more of 4, counted from 0"):
        open_connectome(tmp_path / "a.csv")


def test_a_missing_id_in_parquet_is_refused_by_column_and_row(tmp_path):
    for ids in (["a", None], [1, None]):
        parquet.write_table(pa.table({"pre": ids[::-1], "post": ids[:1] * 2}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"the `pre` id is missing in row 0 of 2, counted from 0"):
            open_connectome(tmp_path / "a.parquet")
