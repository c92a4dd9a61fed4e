"""One train step, its optimizer, and what a loop writes down."""
