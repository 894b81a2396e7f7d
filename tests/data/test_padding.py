"""One stray value, far from the others or far longer, must not fill memory with padding."""

import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from connectinfer.data.columns import as_column
from connectinfer.data.connectome import connectome, from_sparse
from connectinfer.data.graphs import from_networkx
from connectinfer.data.padding import check_filled, text_array
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recording import recording
from connectinfer.data.spike_times import align_spikes, bin_spikes
from connectinfer.data.time_bins import cut_at_events
from connectinfer.data.time_tables import from_table

LONG = ["a" * 10**5, *map(str, range(999))]


def test_a_million_cells_are_always_allowed_and_as_many_more_as_values_fill():
    check_filled(1_000_000, 0, 1, "never")
    check_filled(2_000_000, 20_000, 100, "never")
    with pytest.raises(ValueError, match="refused"):
        check_filled(2_000_001, 20_000, 100, "refused")
    with pytest.raises(ValueError, match="refused"):
        check_filled(np.inf, 20_000, 100, "refused")


SPIKES = {"a": [0.1, 0.2], "b": [0.15, 1e6]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: bin_spikes({"a": [0.1, 1e300]}, bin_width=0.01),
            r"spike times of unit 'a' range over \[0.1, 1e\+300\] s, more than 300 years",
            id="beyond any clock",
        ),
        pytest.param(
            lambda: bin_spikes(SPIKES, bin_width=0.01),
            r"nearly all of 1e\+08 bins of 2 units would be empty: there are 4 spikes in them. Spikes lie between "
            r"0.1 s and 1e\+06 s, bins between 0 s and 1e\+06 s. .* choose a stretch by `start` and `stop`",
            id="one spike far from the others",
        ),
        pytest.param(
            lambda: bin_spikes(SPIKES, bin_width=0.01, start=0.0, stop=1e305), r"nearly all of 1e\+307 bins", id="stop"
        ),
        pytest.param(
            lambda: align_spikes({"a": [0.1, 0.2]}, [0.0], stops=[1e12], bin_width=0.01),
            r"events or ends of trials reach 1e\+12 s, over 300 years",
            id="end of a trial beyond any clock",
        ),
        pytest.param(
            lambda: align_spikes({"a": [0.1, 0.2]}, [0.0], stops=[1e7], bin_width=0.01),
            r"nearly all of 1e\+09 bins of 1 units would be empty: there are 2 spikes",
            id="end of a trial far from the spikes",
        ),
        pytest.param(
            lambda: cut_at_events(recording(time=0.01, counts=np.ones((1, 9, 1), int)), [0.0], stops=[1e6]),
            r"the longest trial would last 1e\+06 s, the data 0.09 s",
            id="end of a trial far from the data",
        ),
        pytest.param(
            lambda: from_table(pd.DataFrame({"u": [1, 2, 3, 4]}, [0.0, 0.1, 0.2, 1e9])),
            r"`time` reaches from 0 s to 1e\+09 s in steps of 0.1 s, but the table has only 3 of them",
            id="row far from the others",
        ),
        pytest.param(
            lambda: from_sparse(sparse.coo_array(([1.0], ([0], [1])), shape=(2**33, 2**33))),
            r"`weight` has shape \(8589934592, 8589934592\) and 1 entries",
            id="matrix of hardly any neurons",
        ),
        pytest.param(
            lambda: connectome(LONG, ["b"] * 1000), r"`pre` holds a text of 100000 characters, 'a+'\.\.\.", id="long id"
        ),
        pytest.param(
            lambda: connectome(range(1000), [0] * 1000, kind=np.array(LONG, object)),
            "`kind` holds a text",
            id="kind",
        ),
        pytest.param(
            lambda: from_networkx(nx.DiGraph([(at, at + 1, {f"k{at}": 1}) for at in range(2000)])),
            "the 2000 edges have 2000 different names, hardly any in two of them",
            id="an attribute for each edge",
        ),
    ],
)
def test_what_would_be_nearly_all_padding_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_spikes_far_apart_are_binned_over_the_stretch_that_is_asked_for():
    assert bin_spikes(SPIKES, bin_width=0.1, start=0.0, stop=0.3)["counts"].values[0].sum() == 3


def test_text_far_longer_than_the_rest_of_its_column_stays_as_it_is():
    column = as_column(LONG, "note")
    assert (column.dtype, column.tolist()) == (object, LONG)
    assert text_array(["long", "x"], "note").dtype == "<U4"


def test_long_notes_do_not_keep_the_other_columns_from_being_read(tmp_path):
    pd.DataFrame({"pre": range(1000), "post": [0] * 1000, "note": LONG}).to_csv(tmp_path / "edges.csv", index=False)
    assert open_connectome(tmp_path / "edges.csv", fields={"pre": "pre", "post": "post"}).sizes["edge"] == 1000
    with pytest.raises(ValueError, match=r"edges.csv: `note` holds a text of 100000 characters"):
        open_connectome(tmp_path / "edges.csv")


def test_objects_without_common_names_are_no_table(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{f"c{at}": 1} for at in range(2000)]))
    with pytest.raises(ValueError, match=r"a.json: the 2000 objects have 2000 different names"):
        open_connectome(tmp_path / "a.json")


def test_a_table_of_one_name_is_refused_at_once(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(["a"] * 20000) + "\n")
    with pytest.raises(ValueError, match=r"a.csv .* its first line repeats names, 1 different ones among 20000"):
        open_recording(tmp_path / "a.csv", bin_width=0.1)


def test_long_text_that_parquet_stores_once_is_not_unfolded(tmp_path):
    pd.DataFrame({"pre": ["a" * 2000] * 20_000, "post": ["b"] * 20_000}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet .* columns \['pre', 'post'\] unfold to more than"):
        open_connectome(tmp_path / "a.parquet")


def test_errors_about_values_name_the_file(tmp_path):
    np.savez(tmp_path / "a.npz", counts=-np.ones((1, 3, 2)), bin_width=0.1)
    with pytest.raises(ValueError, match=r"^a.npz: `counts` must not be negative"):
        open_recording(tmp_path / "a.npz")
