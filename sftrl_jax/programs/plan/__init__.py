"""`sftrl plan`: what a run costs on a slice, before the slice is rented."""
