"""The prediction of a clip as a timeline: one segment for the clip, or one for each of its people."""

from vidpipe.records import Prediction, Segment, Timeline

__all__ = ["timeline_of"]


def timeline_of(prediction: Prediction) -> Timeline:
    """Return the timeline of a clip.

    Args:
        prediction: of the clip.

    Returns:
        A segment for each person; without people, one for the whole clip. None where the clip failed.
    """
    if prediction.error is not None:
        return Timeline(prediction.video_id, error=prediction.error)
    segments = [
        Segment(one.start_seconds, one.stop_seconds, one.labels[0], one.probabilities[0], one.path.track)
        for one in prediction.people
    ]
    if not segments:
        start = prediction.start_seconds
        stop = start + prediction.duration_seconds
        segments = [Segment(start, stop, prediction.label or "", prediction.probability)]
    people = tuple(one.path for one in prediction.people)
    return Timeline(prediction.video_id, tuple(segments), prediction.duration_seconds, people=people)
