"""Supervised fine-tuning on data of one's own."""
