"""`sftrl check`: whether a task and a run's parts agree, before hours are spent."""
