"""Slots of the decode batch that are taken again as soon as a response has ended: one queue over all conversations."""
