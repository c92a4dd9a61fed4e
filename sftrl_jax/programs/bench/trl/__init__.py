"""The peer of `sftrl bench --against=trl`."""
