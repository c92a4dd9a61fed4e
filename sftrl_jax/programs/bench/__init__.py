"""`sftrl bench`: speed against the machine's peak and against torch."""
