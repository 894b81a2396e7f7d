"""JSON: tables of records, trees of fields, and what is neither."""

import gzip
import json

import numpy as np
import pytest

from connectinfer.data.json_files import read_json
from connectinfer.data.reading import open_connectome, open_recording


@pytest.fixture
def write(tmp_path):
    def written(content, name="a.json"):
        path = tmp_path / name
        text = json.dumps(content).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return path

    return written


@pytest.mark.parametrize("name", ["worm.json", "worm.json.gz"])
def test_a_list_of_objects_is_a_table(write, name):
    path = write(
        [{"pre": "AVA", "post": "RIM", "syn": [3, 4], "typ": 0}, {"pre": "RIM", "post": "AVA", "syn": [9]}], name
    )
    made = open_connectome(
        path, fields={"pre": "pre", "post": "post", "size": lambda file: [sum(each) for each in file["syn"]]}
    )
    assert made["size"].values.tolist() == [7, 9]
    assert made.attrs["left_out"] == "typ"
    np.testing.assert_array_equal(read_json(path)["typ"], [0, np.nan])


def test_an_object_is_a_tree_whose_lists_of_objects_are_reached_by_dotted_paths(write):
    content = {"cells": [{"name": "L1"}, {"name": "Tm1"}], "wires": [{"from": "L1", "to": "Tm1", "n": 4}], "note": "x"}
    made = open_connectome(
        write(content),
        fields={"pre": "wires.from", "post": "wires.to", "synapse_count": "wires.n", "neuron": "cells.name"},
    )
    assert made["neuron"].values.tolist() == ["L1", "Tm1"]
    assert made["synapse_count"].item() == 4
    assert made.attrs["left_out"] == "note"


def test_names_that_are_ours_need_no_mapping(write):
    assert open_connectome(write({"pre": [1], "post": [2**60], "weight": [0.5]}))["post"].item() == 2**60
    path = write({"counts": [[[1, 0], [0, 2], [1, 1]]], "bin_width": 0.1})
    read = open_recording(path)
    assert read["counts"].values.tolist() == [[[1, 0], [0, 2], [1, 1]]]


def test_a_bare_list_is_one_field_called_by_the_stem(write):
    assert read_json(write([1, 2.5, None], "rates.json.gz"))["rates"].tolist()[:2] == [1, 2.5]
    assert read_json(write([[0, 1], [2]], "ragged.json"))["ragged"][0].tolist() == [0, 1]


def test_a_list_that_only_begins_with_an_object_is_no_table(write):
    assert read_json(write({"x": [{"a": 1}, 2], "y": 3})) == {"x": ({"a": 1}, 2), "y": 3}


def test_numbers_beyond_int64_keep_their_digits_and_are_refused_as_ids(write):
    path = write({"pre": [2**70], "post": [1]})
    assert read_json(path)["pre"].tolist() == [2**70]
    with pytest.raises(ValueError, match=r"a.json: `pre` ids must be int64 or str"):
        open_connectome(path)


def test_a_missing_value_beside_a_long_integer_is_refused(write):
    message = (
        r"`id` has missing or fractional values \(first in row 1, counted from 0\) beside the integer 115292150460"
    )
    with pytest.raises(ValueError, match=message):
        read_json(write([{"id": 2**60 + 1}, {}]))


@pytest.mark.parametrize("text", ["{", '{"a": 1', "nonsense", '"\ud800', "[1,]"], ids=str)
def test_what_is_no_json_is_refused_by_name(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"a.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")
