"""Training of detectors on one's own annotations, COCO JSON, and the metrics of detectors."""
