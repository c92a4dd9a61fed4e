"""What goes around a train step: what an update leaves as it is, and how much of its rows it computes."""
