"""Where in the picture to look: detectors of people, and what of a frame a backbone sees."""
