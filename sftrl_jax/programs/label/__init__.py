"""`sftrl label`: two responses to a prompt, of which a person picks the better one."""
