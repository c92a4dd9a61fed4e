"""Statistics over bases and seeds: intervals, effects at equal FLOPs, claims."""
