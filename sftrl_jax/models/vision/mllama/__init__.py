"""Llama-3.2-Vision (Mllama): pictures are read by blocks of the decoder that attend to them, not put into its rows.

Dubey et al. 2024, "The Llama 3 Herd of Models", section 7.
"""
