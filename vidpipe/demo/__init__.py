"""`vidpipe demo`: the whole pipeline on videos that it draws itself."""
