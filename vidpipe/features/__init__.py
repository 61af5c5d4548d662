"""The cache: features of many videos in sealed HDF5 files, under a key that names everything that changes a feature."""
