"""A store's features as plain files, read back with h5py or NumPy alone."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.stores import files_below, make_sequence, make_store
from vidpipe.errors import StoreError, UsageError
from vidpipe.features.export import export


def test_npy_files_are_read_with_numpy_alone(tmp_path: Path) -> None:
    sequences = [make_sequence("x/b/é 🎬.mp4", 5), make_sequence("a.mp4", 1), make_sequence("a.avi", 2)]
    store = make_store(tmp_path / "s", sequences)
    (tmp_path / "exported").mkdir()
    assert export(store, tmp_path / "exported", form="npy") == 3
    assert files_below(tmp_path / "exported") == {"index.csv", "x/b/é 🎬.mp4.npy", "a.mp4.npy", "a.avi.npy"}
    with (tmp_path / "exported" / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["a.avi", "a.mp4", "x/b/é 🎬.mp4"]
    by_id = {sequence.video_id: sequence for sequence in sequences}
    for row in rows:
        features = np.load(tmp_path / "exported" / row["file"])
        assert np.array_equal(features, by_id[row["id"]].features)
        assert features.dtype == np.float32
        assert int(row["length"]) == len(features)
        assert (float(row["fps"]), float(row["duration_seconds"]), row["codec"]) == (25.0, 40.0, "h264")


def test_h5_is_read_with_h5py_alone(tmp_path: Path) -> None:
    sequences = [make_sequence("x/b/é 🎬.mp4", 5), make_sequence("a.mp4", 1)]
    assert export(make_store(tmp_path / "s", sequences), tmp_path / "exported", form="h5") == 2
    assert files_below(tmp_path / "exported") == {"features.h5"}
    with h5py.File(tmp_path / "exported" / "features.h5") as file:
        assert file["name"].asstr()[:].tolist() == ["a.mp4", "x/b/é 🎬.mp4"]
        for sequence in sequences:
            features = file["features"][sequence.video_id]
            assert np.array_equal(features[:], sequence.features)
            assert np.array_equal(file["pts_seconds"][sequence.video_id][:], sequence.pts_seconds)
            assert (features.attrs["id"], features.attrs["fps"]) == (sequence.video_id, 25.0)


def test_times_of_a_long_video_fit_into_h5(tmp_path: Path) -> None:
    sequence = make_sequence("a.mp4", 1)
    rows = replace(
        sequence.rows,
        frame_index=np.arange(20_000),
        pts_seconds=np.arange(20_000.0),
        scene_index=np.zeros(20_000, np.int32),
    )
    long = replace(sequence, rows=rows, features=np.zeros((20_000, 2), np.float32))
    export(make_store(tmp_path / "s", [long]), tmp_path / "exported", form="h5")
    with h5py.File(tmp_path / "exported" / "features.h5") as file:
        assert file["pts_seconds/a.mp4"][-1] == 19_999


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_no_id_leads_out_of_the_folder_or_onto_another(tmp_path: Path, form: str) -> None:
    ids = ["../../a.mp4", "/tmp/a.mp4", "b/../a.mp4", "./a.mp4", "b//a.mp4", "a.mp4", "b/a.mp4", "..a.mp4"]
    sequences = [make_sequence(name, seed=seed) for seed, name in enumerate(ids)]
    store = make_store(tmp_path / "in" / "s", sequences)
    export(store, tmp_path / "in" / "exported", form=form)
    assert os.listdir(tmp_path) == ["in"]
    assert sorted(os.listdir(tmp_path / "in")) == ["exported", "s"]
    if form == "npy":
        rows = csv.DictReader((tmp_path / "in/exported/index.csv").read_text().splitlines())
        found = {row["id"]: np.load(tmp_path / "in" / "exported" / row["file"]) for row in rows}
    else:
        with h5py.File(tmp_path / "in" / "exported" / "features.h5") as file:
            datasets = [file["features"][name] for name in file["name"].asstr()]
            found = {dataset.attrs["id"]: dataset[:] for dataset in datasets}
    assert set(found) == set(ids)
    for sequence in sequences:
        assert np.array_equal(found[sequence.video_id], sequence.features)


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_the_longest_names_are_exported(tmp_path: Path, form: str) -> None:
    long = "é" * 125
    ids = [f"{long}a.mp4", f"{long}b.mp4", f"{'d' * 255}/{'x' * 251}.mp4", f"{'x' * 247}.mp4", f"{'x' * 248}.mp4"]
    assert max(len(part.encode()) for name in ids for part in name.split("/")) == 255
    sequences = [make_sequence(name, seed=seed) for seed, name in enumerate(ids)]
    assert export(make_store(tmp_path / "s", sequences), tmp_path / "exported", form=form) == len(ids)
    if form == "npy":
        with (tmp_path / "exported" / "index.csv").open(newline="", encoding="utf-8") as stream:
            files = {row["id"]: row["file"] for row in csv.DictReader(stream)}
        assert len(set(files.values())) == len(ids)
        assert files[ids[3]] == f"{ids[3]}.npy"
        for sequence in sequences:
            found = np.load(tmp_path / "exported" / files[sequence.video_id])
            assert np.array_equal(found, sequence.features)


def test_h5_refuses_an_id_that_is_the_folder_of_another_and_npy_allows_it(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence("a"), make_sequence("a/b.mp4")])
    with pytest.raises(StoreError, match="use npy"):
        export(store, tmp_path / "exported", form="h5")
    assert export(store, tmp_path / "exported", form="npy") == 2


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_an_empty_store_exports_as_nothing(tmp_path: Path, form: str) -> None:
    assert export(make_store(tmp_path / "s", []), tmp_path / "exported", form=form) == 0


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown form 'np'; did you mean 'npy'"):
        export(make_store(tmp_path / "s", []), tmp_path / "exported", form="np")


# the commands
