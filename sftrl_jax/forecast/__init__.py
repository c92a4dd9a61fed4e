"""Success over FLOPs as a sigmoid with a band, from evaluations alone; numpy and no JAX: runs and reports use it."""
