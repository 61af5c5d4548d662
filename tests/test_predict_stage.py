"""`predict` as a function: the order of its predictions, when it works, and which videos it decodes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.execution.loaded import LoadedStream
from vidpipe.features.store import FeatureStore
from vidpipe.records import Prediction, VideoFailure, VideoFeatures, VideoFile
from vidpipe.runs.run import Run
from vidpipe.stages.predict import predict
from vidpipe.video.files import find_videos

CPU = ExtractConfig(device="cpu", workers=1)


@dataclass
class Decoder:
    """Gives the stored features of videos, by default the last video first, and notes what it is asked for."""

    store: FeatureStore
    failing: frozenset[str] = frozenset()
    is_backwards: bool = True
    asked: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    is_closed: bool = False

    def __call__(
        self, videos: Sequence[VideoFile], streams: Mapping[str, LoadedStream], **settings: Any
    ) -> Iterator[VideoFeatures | VideoFailure]:
        self.asked += [video.id for video in videos]
        try:
            for video in reversed(videos) if self.is_backwards else videos:
                self.given.append(video.id)
                failure = VideoFailure(video.id, "DecodeError", "cut short")
                features = VideoFeatures(video.id, dict.fromkeys(streams, self.store[video.id]))
                yield failure if video.id in self.failing else features
        finally:
            self.is_closed = True


@pytest.fixture
def trained(made: Path) -> Run:
    return Run.open(made / "run")


@pytest.fixture
def videos(made: Path) -> list[VideoFile]:
    return find_videos([made / "videos"])[:5]


@pytest.fixture
def decoder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    decoder = Decoder(FeatureStore.open(made / "features"))
    monkeypatch.setattr("vidpipe.stages.apply.iter_features", decoder)
    not_loaded = Mock(side_effect=lambda stream, config, num_videos: LoadedStream(Mock(), stream.key))
    monkeypatch.setattr(LoadedStream, "load", not_loaded)
    return decoder


def test_predictions_come_in_the_order_of_the_videos(trained: Run, videos: list[VideoFile], decoder: Decoder) -> None:
    asked = [videos[index] for index in (3, 0, 4, 1)]
    predictions = list(predict(trained, asked, config=CPU))
    assert [prediction.video_id for prediction in predictions] == [video.id for video in asked]
    assert decoder.given == [video.id for video in reversed(asked)]


def test_features_that_are_decoded_and_features_that_are_stored_give_the_same(made: Path, trained: Run) -> None:
    videos = [video for video in find_videos([made / "videos"]) if video.id.endswith("3.mp4")]
    cached = list(predict(trained, videos, store=FeatureStore.open(made / "features"), config=CPU))
    fresh = list(predict(trained, videos, config=CPU))
    assert [one.labels for one in fresh] == [one.labels for one in cached]
    for one, other in zip(fresh, cached, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert (one.num_frames, one.duration_seconds) == (other.num_frames, other.duration_seconds)


def test_nothing_is_decoded_before_the_first_prediction_is_asked_for(
    trained: Run, videos: list[VideoFile], decoder: Decoder
) -> None:
    predictions = predict(trained, videos, config=CPU)
    assert decoder.asked == []
    next(predictions)
    assert decoder.asked == [video.id for video in videos]


def test_each_prediction_is_given_as_soon_as_it_and_those_before_it_are_done(
    trained: Run, videos: list[VideoFile], decoder: Decoder
) -> None:
    decoder.is_backwards = False
    for number, prediction in enumerate(predict(trained, videos, config=CPU), start=1):
        assert prediction.video_id == videos[number - 1].id
        assert len(decoder.given) == number


def test_decoding_stops_when_the_predictions_are_no_longer_wanted(
    trained: Run, videos: list[VideoFile], decoder: Decoder
) -> None:
    predictions = predict(trained, [videos[4], videos[0], videos[1]], config=CPU)
    assert isinstance(predictions, Iterator)
    next(predictions)
    predictions.close()  # type: ignore[attr-defined]
    assert decoder.is_closed


def test_a_video_that_fails_gives_its_reason_and_the_others_go_on(
    trained: Run, videos: list[VideoFile], decoder: Decoder
) -> None:
    decoder.failing = frozenset({videos[1].id})
    predictions = list(predict(trained, videos, config=CPU))
    assert [one.status for one in predictions] == ["ok", "failed", "ok", "ok", "ok"]
    assert predictions[1] == Prediction(videos[1].id, error="cut short")


def test_what_the_store_holds_is_not_decoded(
    made: Path, trained: Run, videos: list[VideoFile], decoder: Decoder
) -> None:
    changed = replace(videos[2], path=made / "new/a.mp4")  # the id is stored, with another file
    asked = [*videos[:2], changed, *videos[3:]]
    predictions = list(predict(trained, asked, store=FeatureStore.open(made / "features"), config=CPU))
    assert decoder.asked == [changed.id]
    assert [one.video_id for one in predictions] == [video.id for video in asked]


def test_where_the_store_holds_all_no_backbone_is_needed(
    made: Path, trained: Run, videos: list[VideoFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stream, "of_key", None)
    config = replace(CPU, weights="nowhere.pth")
    store = FeatureStore.open(made / "features")
    assert len(list(predict(trained, videos, store=store, config=config))) == len(videos)
    assert list(predict(trained, [], config=config)) == []


def test_weights_that_are_not_there_or_not_the_run_s_are_refused(
    made: Path, trained: Run, videos: list[VideoFile]
) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pth: no such weights file"):
        next(predict(trained, videos, config=replace(CPU, weights="nowhere.pth")))
    with pytest.raises(RunError, match="other weights of lenet5"):
        next(predict(trained, videos, config=replace(CPU, weights=str(made / "run/model.safetensors"))))


def test_settings_that_change_a_feature_come_from_the_run(made: Path, trained: Run) -> None:
    videos = find_videos([made / "new/a.mp4"])
    others = replace(CPU, backbone="resnet50", sampling="fps", fps=25.0, pool="max", dtype="float16")
    assert list(predict(trained, videos, config=others)) == list(predict(trained, videos, config=CPU))
    assert next(predict(trained, videos, config=others)).num_frames == 4


def test_a_store_of_other_features_is_refused(trained: Run, videos: list[VideoFile], tmp_path: Path) -> None:
    other = FeatureStore.create(tmp_path / "s", replace(trained.streams[0].key, dtype="float16"))
    with pytest.raises(RunError, match="float16"):
        next(predict(trained, videos, store=other, config=CPU))


def test_top_and_min_confidence_shape_the_answer(trained: Run, videos: list[VideoFile], decoder: Decoder) -> None:
    (one,) = predict(trained, videos[:1], top=1, min_confidence=1.0, config=CPU)
    assert (len(one.labels), one.status, one.label) == (1, "unknown", "none of these")
    (one,) = predict(trained, videos[:1], top=9, config=CPU)
    assert (len(one.labels), one.status) == (2, "ok")
    assert sum(one.probabilities) == pytest.approx(1)
