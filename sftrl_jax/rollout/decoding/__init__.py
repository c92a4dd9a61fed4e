"""The compiled functions of decoding, and where their arrays are."""
