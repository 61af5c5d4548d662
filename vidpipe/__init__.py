"""vidpipe: from a folder of videos to an action label.

videos -> sampled frames -> frozen image model -> feature store (HDF5) -> LSTM classifier -> labels
"""

__version__ = "0.1.0"
