"""`sftrl study`: methods compared on the same bases at the same FLOPs."""
